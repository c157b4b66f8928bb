from core.formats.records import MESSAGES, Findings


def test_drops_are_counted_by_kind_and_the_first_are_told_in_full() -> None:
    findings = Findings()
    for number in range(MESSAGES + 2):
        findings.drop("record without an image", f"a.json: entry {number}", number)
    assert findings.dropped == {"record without an image": MESSAGES + 2}
    assert len(findings.messages) == MESSAGES
    assert findings.messages[0] == "a.json: entry 0: record without an image (0)"


def test_a_message_is_one_printable_line_whatever_the_source_calls_its_parts() -> None:
    findings = Findings()
    findings.drop("sample without an image", "a.tar: sample \x1b[2J\n", "\a")
    assert findings.messages[0].isprintable()
