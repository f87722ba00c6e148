"""README.zh-CN.md says what README.md says: the same headings, commands, figures, links and rows."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
NAMES = ("README.md", "README.zh-CN.md")
ENGLISH, CHINESE = ((ROOT / name).read_text(encoding="utf-8") for name in NAMES)
BLOCK = re.compile(r"^```\w*\n.*?^```$|(?:^    [^\n]+\n)+", flags=re.DOTALL | re.MULTILINE)


def _prose(text: str) -> str:
    return BLOCK.sub("", text)


def _in_code(text: str) -> list[str]:
    """Return what is between single backticks, in any order: a sentence may be turned round."""
    return sorted(re.findall(r"`([^`\n]+)`", _prose(text)))


def _tables(text: str) -> list[list[str]]:
    """Return the figures of each row of each table, in order, e.g. .4436 and 0.5."""
    blocks = re.findall(r"(?:^\|.*\n)+", text, flags=re.MULTILINE)
    return [
        ["; ".join(re.findall(r"(?<![\w.])\d*\.?\d[\d,]*", _without_words(row))) for row in block.splitlines()]
        for block in blocks
    ]


def _without_words(row: str) -> str:
    """Leave out names in code and links, whose digits are no figures; _in_code and links have their own tests."""
    return re.sub(r"`[^`]*`|\]\([^)]*\)", "", row)


def test_the_first_line_of_each_leads_to_the_other() -> None:
    assert ENGLISH.splitlines()[0] == "English | [简体中文](README.zh-CN.md)"
    assert CHINESE.splitlines()[0] == "[English](README.md) | 简体中文"


def test_the_headings_are_as_many_and_as_deep() -> None:
    depths = [re.findall(r"^#+(?= )", _prose(text), flags=re.MULTILINE) for text in (ENGLISH, CHINESE)]
    assert depths[0] == depths[1]
    assert len(depths[0]) > 5


def test_the_blocks_of_code_are_the_same() -> None:
    assert BLOCK.findall(ENGLISH) == BLOCK.findall(CHINESE)
    assert len(BLOCK.findall(ENGLISH)) >= 4


def test_the_tables_have_the_same_rows_and_figures() -> None:
    assert _tables(ENGLISH) == _tables(CHINESE)
    assert _tables("| `recvae-2` | .4436 [.43 to 1,024] |\n") == [[".4436; .43; 1,024"]]
    assert sum("." in row for table in _tables(ENGLISH) for row in table) > 5


@pytest.mark.parametrize("pattern", [r"\]\(([^)\s]+)\)", r"(?<![\w.])\d[\d,]*\.\d+ s\b"], ids=["links", "seconds"])
def test_links_and_figures_of_the_text_are_the_same(pattern: str) -> None:
    found = [sorted(re.findall(pattern, text)) for text in (ENGLISH, CHINESE)]
    assert [one for one in found[0] if "README" not in one] == [one for one in found[1] if "README" not in one]
    assert len(found[0]) > 3


def test_every_name_in_code_is_in_both() -> None:
    missing = sorted(set(_in_code(ENGLISH)) - set(_in_code(CHINESE)))
    assert missing == []


def test_it_uses_the_terms_of_the_field() -> None:
    for term in ("用户", "物品", "交互", "自编码器", "基线", "验证集", "超参数", "置信区间", "随机种子"):
        assert term in CHINESE, term
