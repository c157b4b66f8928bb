from core.formats.records import MESSAGES, Findings


def test_drops_are_counted_by_kind_and_the_first_are_told_in_full() -> None:
    findings = Findings()
    for number in range(MESSAGES + 2):
        findings.drop("record without an image", f"a.json: entry {number}", number)
    assert findings.dropped == {"record without an image": MESSAGES + 2}
    assert len(findings.messages) == MESSAGES
    assert findings.messages[0] == "a.json: entry 0: record without an image (0)"
