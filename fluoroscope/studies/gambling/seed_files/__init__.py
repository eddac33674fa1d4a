"""Files in the forms of the plan that this study grew from (seed 000): its authors can bring their
games and features, and get results under the names and fields that they know.
"""
