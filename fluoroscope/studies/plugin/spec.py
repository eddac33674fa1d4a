"""What a user says of the plug-in study; this module is free of torch."""

from fluoroscope.studies.plugin.settings import PluginSettings


class PluginSpec(PluginSettings):
    """`fluoro run plugin`: a classifier of a small encoder and one frozen layer of a large model,
    the layer chosen from the training side, beside controls that say what the layer was worth.
    """
