import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.formats import entities
from tests.core.formats.sources import draw, import_to, read_records, survives, write

XML = """<annotation>
\t<filename>1000092795.jpg</filename>
\t<size><width>400</width><height>200</height><depth>3</depth></size>
\t<object><name>1</name><bndbox><xmin>41</xmin><ymin>21</ymin><xmax>81</xmax><ymax>61</ymax></bndbox></object>
\t<object><name>1</name><name>6</name>
\t\t<bndbox><xmin>201</xmin><ymin>101</ymin><xmax>241</xmax><ymax>141</ymax></bndbox></object>
\t<object><name>10</name><scene>0</scene><nobndbox>1</nobndbox></object>
</annotation>
"""
SENTENCES = """[/EN#1/people Two young , White males] are outside near [/EN#4/scene many bushes] .
[/EN#6/bodyparts/people A man] spends [/EN#10/other time] with [/EN#0/notvisual each other] .

"""


def entities_folder(tmp_path: Path, xml: str = XML, sentences: str = SENTENCES) -> Path:
    folder = tmp_path / "flickr30k_entities"
    write(folder / "Annotations/1000092795.xml", xml)
    write(folder / "Sentences/1000092795.txt", sentences)
    write(folder / "train.txt", "1000092795\n")
    draw(folder / "flickr30k-images", "1000092795.jpg")
    return folder


def test_phrases_get_their_boxes_and_captions_lose_their_brackets(tmp_path: Path) -> None:
    files, imported = import_to(entities_folder(tmp_path), tmp_path / "out", test_fraction=0.0)
    image = {"image_id": "1000092795/1000092795.jpg", "image": "1000092795.jpg"}
    assert files["train"] == [
        {
            **image, "caption": "Two young , White males are outside near many bushes .",
            "sentences": ["Two young , White males"], "bboxes": [[0.35, 0.4, 0.5, 0.6]],  # both boxes of 1
        },
        {
            **image, "caption": "A man spends time with each other .",
            "sentences": ["A man"], "bboxes": [[0.55, 0.6, 0.1, 0.2]],
        },
    ]  # fmt: skip
    assert imported.findings.repaired["several boxes of a phrase replaced by one around them"] == 1


def test_lists_of_splits_and_of_unrelated_captions_are_followed(tmp_path: Path) -> None:
    folder = entities_folder(tmp_path)
    write(folder / "Sentences/7.txt", "[/EN#1/people A dog] .\n")
    draw(folder / "flickr30k-images", "7.jpg")
    write(folder / "test.txt", "7\n")
    write(folder / "UNRELATED_CAPTIONS", "imageID sentenceNo\n1000092795 2\n")
    files, imported = import_to(folder, tmp_path / "out")
    assert len(files["train"]) == 1
    assert files["test"] == [{"image_id": "7/7.jpg", "image": "7.jpg", "caption": ["A dog ."]}]
    assert imported.findings.dropped == {"caption listed in UNRELATED_CAPTIONS": 1}
    assert imported.findings.repaired["image without boxes, since it has no XML file"] == 1


def test_entities_that_expand_are_refused_before_they_do(tmp_path: Path) -> None:
    bomb = '<!DOCTYPE a [<!ENTITY b "c"><!ENTITY d "&b;&b;&b;">]><annotation><filename>&d;</filename></annotation>'
    for number, xml in enumerate((bomb, bomb.encode("utf-16").decode("latin-1"))):
        folder = entities_folder(tmp_path / str(number))
        (folder / "Annotations/1000092795.xml").write_bytes(xml.encode("latin-1"))
        records, findings = read_records(entities.read, folder)
        assert records == []
        assert "declares a document type" in findings.messages[0]


@pytest.mark.parametrize(
    ("line", "caption", "phrases"),
    [
        ("[/EN#1/people A man] .", "A man .", [("1", "A man")]),
        ("[/EN#2/other/scene The\u00a0field]  ,", "The field ,", [("2", "The field")]),
        ("no phrase [ at all ]", "no phrase [ at all ]", []),
    ],
)
def test_lines_are_read_as_the_authors_do(line: str, caption: str, phrases: list[tuple[str, str]]) -> None:
    assert entities.parse_line(line) == (caption, phrases)


@settings(max_examples=60)
@given(st.text(alphabet="[]/EN#12 peo\nA", max_size=60))
def test_any_sentences_are_a_data_set_or_one_line(text: str) -> None:
    survives("Sentences/a.txt", text, format="entities")


@settings(max_examples=60)
@given(
    st.lists(
        st.sampled_from(
            ["<annotation>", "</annotation>", "<object>", "</object>", "<name>1</name>", "<bndbox>", "</bndbox>",
             "<xmin>1</xmin>", "<ymin>x</ymin>", "<size/>", "<!DOCTYPE a>", "&b;", "\0"]
        ),
        max_size=8,
    )
)  # fmt: skip
def test_any_xml_is_a_data_set_or_one_line(parts: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        source = entities_folder(Path(folder), "".join(["<annotation>", *parts, "</annotation>"]))
        records, findings = read_records(entities.read, source)
        assert bool(records) != bool(findings.dropped["image whose files cannot be read"])
