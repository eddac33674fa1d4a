"""The studies by name. Specs are apart, so that `--help` needs no torch."""

from typing import TYPE_CHECKING

from fluoroscope.core.registry import Registry

if TYPE_CHECKING:
    from fluoroscope.core.config import Config
    from fluoroscope.runs.study import Study

STUDIES: "Registry[type[Study[Config, Config]]]" = Registry(
    "study",
    {
        "anatomy": "fluoroscope.studies.anatomy.study:AnatomyStudy",
        "connection": "fluoroscope.studies.connection.study:ConnectionStudy",
        "dictionary": "fluoroscope.studies.dictionary.study:DictionaryStudy",
        "gambling": "fluoroscope.studies.gambling.study:GamblingStudy",
        "hallucination": "fluoroscope.studies.hallucination.study:HallucinationStudy",
        "organism": "fluoroscope.studies.organism.study:OrganismStudy",
        "patch": "fluoroscope.studies.patch.study:PatchStudy",
        "plugin": "fluoroscope.studies.plugin.study:PluginStudy",
        "policy": "fluoroscope.studies.policy.study:PolicyStudy",
        "steering": "fluoroscope.studies.steering.study:SteeringStudy",
        "unlearning": "fluoroscope.studies.unlearning.study:UnlearningStudy",
    },
)
SPECS: "Registry[type[Config]]" = Registry(
    "study",
    {
        "anatomy": "fluoroscope.studies.anatomy.spec:AnatomySpec",
        "connection": "fluoroscope.studies.connection.spec:ConnectionSpec",
        "dictionary": "fluoroscope.studies.dictionary.spec:DictionarySpec",
        "gambling": "fluoroscope.studies.gambling.spec:GamblingSpec",
        "hallucination": "fluoroscope.studies.hallucination.spec:HallucinationSpec",
        "organism": "fluoroscope.studies.organism.spec:OrganismSpec",
        "patch": "fluoroscope.studies.patch.spec:PatchSpec",
        "plugin": "fluoroscope.studies.plugin.spec:PluginSpec",
        "policy": "fluoroscope.studies.policy.spec:PolicySpec",
        "steering": "fluoroscope.studies.steering.spec:SteeringSpec",
        "unlearning": "fluoroscope.studies.unlearning.spec:UnlearningSpec",
    },
)
