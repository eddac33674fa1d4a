"""The README's lines of Python work as they stand."""

import re
from pathlib import Path

README = Path(__file__).resolve().parents[1] / "README.md"


def blocks_of_python() -> list[str]:
    return re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)


def test_the_python_of_the_readme_works_and_says_what_is_true(capsys):
    exec(blocks_of_python()[0], {})  # Our own README: this is what it is tested for.
    latents, truth, model, replaced = capsys.readouterr().out.splitlines()
    assert re.search(r"\{(\d+: [\d.e-]+(, )?){5}\}$", latents)
    true, found, with_sae = (float(line.split()[-1]) for line in (truth, model, replaced))
    assert abs(found - true) < 0.05
    assert with_sae != found


def test_the_patch_of_the_readme_changes_what_the_model_decides(capsys):
    _, code = blocks_of_python()
    exec(code, {})  # Our own README: this is what it is tested for.
    before, after = capsys.readouterr().out.splitlines()
    assert "Stop" in before
    assert "Bet" in after
