"""The steps of the plug-in study."""
