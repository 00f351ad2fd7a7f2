"""The vocabulary of the whole tree."""

from tests.structure.vocabulary import ROOT, TABLE, check, read_table, read_tree, report


def test_the_tree_keeps_the_vocabulary() -> None:
    findings, unused = check(read_tree(ROOT), read_table(TABLE.read_text(encoding="utf-8")))
    assert not findings, "\n".join(["words that the vocabulary replaces:", *report(findings)])
    assert not unused, "\n".join(["exceptions that nothing needs:", *map(str, unused)])
