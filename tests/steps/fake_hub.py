"""A hub without a network."""

from types import SimpleNamespace

from huggingface_hub.errors import LocalEntryNotFoundError

from fluoroscope.core.storage import sha256_file


class Hub:
    """A hub whose repositories are folders, which counts what is asked of it."""

    commit = "c0ffee"

    def __init__(self, root):
        self.root, self.fetched, self.looked_up, self.is_down = root, [], [], False

    def model_info(self, name, *, revision=None, **_):
        if self.is_down:
            raise OSError("name resolution")
        folder = self.root / name
        assert revision in (None, "main", self.commit)
        files = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()]
        siblings = [SimpleNamespace(rfilename=str(file)) for file in files]
        return SimpleNamespace(sha=self.commit, siblings=siblings)

    def get_paths_info(self, name, paths, *, revision):
        assert revision == self.commit
        self.looked_up += paths
        return [SimpleNamespace(lfs=self._lfs(self.root / name / path)) for path in paths]

    def _lfs(self, file):
        return SimpleNamespace(sha256=sha256_file(file))

    def download(self, name, file, *, revision=None):
        if self.is_down:
            raise LocalEntryNotFoundError("name resolution")
        assert revision == self.commit
        self.fetched.append(file)
        return str(self.root / name / file)
