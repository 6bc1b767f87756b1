"""Write docs/notebooks/first-merge.ipynb: `python -m docs.notebooks.make`.

A notebook is easier to read and to review as this list of cells. tests/test_notebook.py runs it.
"""

from __future__ import annotations

from pathlib import Path

import nbformat

PATH = Path(__file__).with_name("first-merge.ipynb")
#: Cells of Markdown begin with ``#`` or a word, those of code with ``>``; ``!`` are slips.
CELLS = [
    """# A first merge

Everything here runs offline, on a laptop, in seconds. The models are those of
`breadcrumbs demo`, half a megabyte each, which come with the package: a base and its fine-tunings.
Put folders or hub ids of your own models in place of the paths.""",
    """>from pathlib import Path

import breadcrumbs

data = Path(breadcrumbs.__file__).parent / "demo" / "data"
base = data / "base.safetensors"
digits, fashion = data / "digits.safetensors", data / "fashion.safetensors"
breadcrumbs.__version__""",
    """## Look

`load` reads nothing but the header. A tensor is read when it is asked for, and of a slice only its
rows.""",
    """>weights = breadcrumbs.load(base)
weights""",
    """>name = next(name for name, shape in weights.shapes.items() if len(shape) == 2)
name, weights.shapes[name], weights[name, 0:2].shape""",
    """How alike are the fine-tunings? A cosine near 0 means that they changed different things, and
that both changes fit into one model.""",
    """>compared = breadcrumbs.compare(base, [digits, fashion], names=["digits", "fashion"])
compared""",
    """>compared.to_frame()""",
    """## Merge

Without an `alpha`, one is chosen automatically. `names` are for the report.""",
    """>merged = breadcrumbs.merge(base, [digits, fashion], names=["digits", "fashion"])
merged.report""",
    """The result is a dict of tensors. `save` writes what the command line would: the weights, the
recipe that makes them again, a model card, and the base's config and tokenizer if it has them.
`merged.push_to_hub("you/name")` uploads the same folder.""",
    """>merged.save("merged")
sorted(path.name for path in Path("merged").iterdir())""",
    """Large models are better streamed: `output=` writes while it reads, and holds no model in
memory.""",
    """>breadcrumbs.merge(base, [digits, fashion], method="ties", output="streamed")""",
    """## Modules

What you give is what you get: of a Torch module, a module with the merged weights. Models of PEFT
count as their adapter on its base. Nothing that you give is changed.""",
    """>import copy

import torch

torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))


def trained(seed):
    found = copy.deepcopy(model)
    torch.manual_seed(seed)
    with torch.no_grad():
        for weight in found.parameters():
            weight += 0.1 * torch.randn_like(weight)
    return found


first, second = trained(1), trained(2)
breadcrumbs.merge(model, [first, second], method="task_arithmetic", alpha=0.5)""",
    """## Task vectors

Fine-tuned minus base is a value to compute with.""",
    """>tau1, tau2 = breadcrumbs.TaskVector(model, first), breadcrumbs.TaskVector(model, second)
tau1.norm(), tau1.cosine(tau2)""",
    """>((tau1 + tau2) / 2).apply_to(model)""",
    """## Slips

What goes wrong says so in a line: where, what was found, and what to do. These cells are wrong on
purpose.""",
    """!breadcrumbs.merge(model, None)""",
    """!breadcrumbs.merge(model, first)""",
    """!breadcrumbs.merge(model, [first], method="tis")""",
    """!breadcrumbs.merge(model, [first], methd="ties")""",
    """!breadcrumbs.merge(model, [first], alpha="large")""",
    """!breadcrumbs.merge(model, [first.state_dict(), None])""",
    """!breadcrumbs.merge(base, [data / "digit.safetensors"])""",
    """!breadcrumbs.merge(base, [digits], output="merged")""",
    """!breadcrumbs.merge(model, [{"0.weigth": first[0].weight}])""",
    """!breadcrumbs.load(base)["nothing"]""",
    """Next: [the Python page](../python.md), and [which method when](../choosing.md).""",
]


def notebook() -> nbformat.NotebookNode:
    """Return the notebook without outputs."""
    made = nbformat.v4.new_notebook()
    for number, text in enumerate(CELLS):
        if text[0] in ">!":
            cell = nbformat.v4.new_code_cell(text[1:])
            if text[0] == "!":
                cell.metadata["tags"] = ["raises-exception"]
        else:
            cell = nbformat.v4.new_markdown_cell(text)
        cell["id"] = f"cell-{number}"
        made.cells.append(cell)
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    made.metadata["kernelspec"] = kernel
    return made


if __name__ == "__main__":
    nbformat.write(notebook(), PATH)
