"""The demo's page shows titles, captions and texts as they are, and obeys none of them."""

from html.parser import HTMLParser

from PIL import Image

from ecofm.demo.page import Page

HOSTILE = "\"><script>alert(1)</script><img src=x onerror='a'> &lt; \x1b \u202e"


def test_hostile_texts_add_no_element(tmp_path):
    page = Page(title=HOSTILE, lead=HOSTILE)
    page.add_figure(HOSTILE, HOSTILE, Image.new("RGB", (4, 4)))
    page.add_text(HOSTILE, f"first\n{HOSTILE}")
    page.write(tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    tags, shown = [], []
    parser = HTMLParser()
    parser.handle_starttag = lambda tag, attributes: tags.append((tag, dict(attributes)))
    parser.handle_data = shown.append
    parser.feed(text)
    assert "script" not in {tag for tag, _ in tags}
    assert not any("onerror" in attributes for _, attributes in tags)
    assert [tag for tag, _ in tags].count("img") == 1
    assert "<script>alert(1)</script>" in "".join(shown) and "first\n" in "".join(shown)
    assert not set(text) & {"\x1b", "\u202e"}
