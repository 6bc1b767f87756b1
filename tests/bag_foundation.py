"""A real foundation, as a user writes one: texts as counts of words, a small network over them."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import torch

import breadcrumbs
from breadcrumbs.evaluate.foundations.foundation import Batch

WORDS, WIDTH = 256, 24


class Bag(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.words = torch.nn.Embedding(WORDS, WIDTH)
        self.hidden = torch.nn.Linear(WIDTH, WIDTH)
        self.unused = torch.nn.Linear(WIDTH, 2)
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))

    def forward(self, words, mask):
        mean = (self.words(words) * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        return torch.nn.functional.normalize(self.hidden(torch.relu(mean)).float(), dim=1)


def write_base(folder, dtype=torch.float32):
    from safetensors.torch import save_file

    torch.manual_seed(0)
    Path(folder).mkdir()
    state = Bag().state_dict()
    state = {name: t.to(dtype) if t.is_floating_point() else t for name, t in state.items()}
    save_file(state, f"{folder}/model.safetensors", {"format": "pt"})
    Path(folder, "config.json").write_text('{"model_type": "bag"}\n')
    Path(folder, "README.md").write_text("about the base\n")


class BagFoundation:
    kind = "bag"
    settings = {"words": WORDS}  # noqa: RUF012
    trains_heads = True

    def load(self, base):
        module = Bag()
        state = {}
        for name, array in breadcrumbs.open(base).items():
            wide = array if array.dtype.kind == "i" else array.astype(np.float32)
            state[name] = torch.from_numpy(np.array(wide))
        module.load_state_dict(state)
        return module.eval()

    def prepare(self, task, rows, size):
        made = [[zlib.crc32(w.encode()) % WORDS for w in text.split()] for text in rows.inputs]
        order = np.argsort([len(words) for words in made], kind="stable")
        batches = []
        for start in range(0, len(order), size):
            mine = order[start : start + size]
            longest = max(len(made[row]) for row in mine)
            words = torch.zeros(len(mine), longest, dtype=torch.int64)
            mask = torch.zeros(len(mine), longest)
            for i, row in enumerate(mine):
                words[i, : len(made[row])] = torch.tensor(made[row])
                mask[i, : len(made[row])] = 1
            inputs = {"words": words, "mask": mask}
            batches.append(Batch(inputs, mine, torch.from_numpy(rows.labels[mine])))
        return batches

    def head(self, module, task):
        rows = task.rows("train")
        total = torch.zeros(len(task.labels), WIDTH)
        for batch in self.prepare(task, rows, 64):
            total.index_add_(0, batch.labels, module(**batch.inputs))
        return {"classes": torch.nn.functional.normalize(total, dim=1)}

    def features(self, module, batch):
        return module(**batch.inputs)

    def answer(self, head, features):
        return 20 * features @ head["classes"].T

    def logits(self, module, head, batch):
        return self.answer(head, self.features(module, batch))

    def loss(self, module, head, batch):
        noise = torch.randn(len(batch.rows), 1)  # what is random must not depend on interruptions
        logits = self.logits(module, head, batch) + 0.01 * noise
        return torch.nn.functional.cross_entropy(logits, batch.labels)


FOUNDATION = BagFoundation()
