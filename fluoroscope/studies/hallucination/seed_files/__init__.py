"""Results in the forms of the plan that this study grew from (seed 001), under its names; what was
a pickle there is JSON, arrays or safetensors here.
"""
