"""The README's lines of Python work as they stand."""

import re
from pathlib import Path

README = Path(__file__).resolve().parents[1] / "README.md"


def test_the_python_of_the_readme_works_and_says_what_is_true(capsys):
    [code] = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    exec(code, {})  # Our own README: this is what it is tested for.
    latents, truth, model, replaced = capsys.readouterr().out.splitlines()
    assert re.search(r"\{(\d+: [\d.e-]+(, )?){5}\}$", latents)
    true, found, with_sae = (float(line.split()[-1]) for line in (truth, model, replaced))
    assert abs(found - true) < 0.05
    assert with_sae != found
