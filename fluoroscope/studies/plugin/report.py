"""report.html: written by another commit."""

from fluoroscope.core.sink import Sink
from fluoroscope.runs.run import Run
from fluoroscope.studies.plugin.config import PluginConfig


def write_report(run: Run, config: PluginConfig, sink: Sink) -> None:
    from fluoroscope.studies.plugin.seed_layout import write_seed_layout

    for folder in write_seed_layout(run, config):
        sink.message(f"Written: {folder}")
