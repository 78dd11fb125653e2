"""The report page."""

import re
from html.parser import HTMLParser

import pytest

from schemas.benchmark import Verdict
from schemas.report import Curve, GroupFigures, LayerFigures, Stage
from tests.unit.report.sample import (
    FLOOR,
    sample_benchmark,
    sample_comparison,
    sample_layers,
    sample_report,
    sample_rounds,
)
from workers.report.page import render_html

VOID = {"meta", "br", "wbr", "link", "img", "hr", "input"}
HOSTILE = "<script>alert('$1')</script>\"&"


class Outline(HTMLParser):
    """Tags, ids, text by the tag it stands in, and whether every tag is closed in order."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.attributes: list[tuple[str, str, str | None]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attrs]
        self.ids += [value for name, value in attrs if name == "id"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += " " + data


@pytest.fixture(scope="module")
def page() -> str:
    return render_html(sample_report())


def text_of(page: str) -> str:
    return re.sub(r"\s+", " ", Outline(page).text)


def test_every_tag_is_closed_and_every_id_is_unique(page):
    outline = Outline(page)

    assert outline.open == []
    assert len(outline.ids) == len(set(outline.ids))


def test_asks_no_other_server_for_anything(page):
    outline = Outline(page)

    loaded = [
        (tag, value) for tag, name, value in outline.attributes if name in ("src", "srcset", "data", "action")
    ]
    links = [value for _, name, value in outline.attributes if name in ("href", "xlink:href")]
    assert loaded == []
    assert all(value.startswith("#") for value in links)
    assert not {"script", "link", "iframe", "img", "object", "base"} & set(outline.tags)
    assert "url(http" not in page
    assert "@import" not in page


def test_every_reference_inside_of_a_chart_has_its_target(page):
    targets = set(re.findall(r'(?:href="|url\()#([^")]+)', page))

    assert targets
    assert targets <= set(Outline(page).ids)


def test_same_report_gives_the_same_bytes(page):
    assert render_html(sample_report()) == page


def test_shows_the_verdict_and_the_dense_and_pruned_figures():
    report = sample_report()

    text = text_of(render_html(report)).replace("\N{NO-BREAK SPACE}", " ")

    assert report.verdict in text
    for figure in ("692,650", "142,084", "2.79 MB", "743 kB", "−71.2 %", "−0.36 points", "13.9 M", "4.87 M"):
        assert figure in text


def test_charts_and_tables_speak_to_screen_readers(page):
    outline = Outline(page)

    labels = [value for tag, name, value in outline.attributes if tag == "svg" and name == "aria-label"]
    assert len(labels) == 2
    assert "round 5: 80.0 % removed, 91.16 %" in labels[0]
    assert "Batch 32: no difference" in labels[1]
    assert outline.tags.count("caption") == outline.tags.count("table") == 6


def test_charts_follow_the_theme(page):
    charts = re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL)

    assert all("var(--" in chart for chart in charts)
    assert not any(re.search(r"#0[1-6]0[2-7]0[3-8]", chart) for chart in charts)


def test_escapes_what_a_user_or_a_model_names():
    layer = LayerFigures(
        name=f"a.{HOSTILE}",
        kind=HOSTILE,
        shape=[2],
        weights=2,
        zeros=0,
        sparsity=0,
        pruned=False,
        reason=HOSTILE,
    )
    report = sample_report(
        layers=[layer],
        metric_name=HOSTILE,
        architecture=HOSTILE,
        notes=[HOSTILE],
        verdict=HOSTILE,
        job=HOSTILE,
    )

    page = render_html(report)

    outline = Outline(page)
    assert "script" not in outline.tags
    assert "<script" not in page
    assert outline.text.count("alert('$1')") >= 7
    assert outline.open == []


def test_marks_the_round_that_broke_the_floor():
    held = render_html(sample_report())
    broken = render_html(sample_report(rounds=sample_rounds(last_held=False), goal_reached=False))

    assert held.count('class="broken"') == 0
    assert broken.count('class="broken"') == 1
    assert "fell below the floor" in broken
    assert "not reached" in broken


def test_layer_left_dense_says_why_and_has_no_bar():
    pruned, left = sample_layers()[0], sample_layers()[-1]

    page = render_html(sample_report(layers=[pruned, left]))

    assert "left dense</span> excluded by &#39;classifier.*&#39;" in page
    assert "1 of 2 layers were pruned" in page
    assert page.count("width: 28.0%") == 1


def test_floor_far_below_does_not_flatten_the_curve():
    near, far = (render_html(sample_report(floor=floor)) for floor in (FLOOR, 0.0))

    assert "below this chart" not in near
    assert "below this chart" in far


@pytest.mark.parametrize("verdict", list(Verdict))
def test_each_verdict_is_in_words_on_the_page(verdict):
    benchmark = sample_benchmark(sample_comparison(8, 1.2, 1.1, 1.3, 0.02, verdict))

    text = text_of(render_html(sample_report(benchmark=benchmark)))

    assert f"batch 8: {verdict.value.replace('_', ' ')}" in text
    assert "ONNX Runtime computes zeros like any other weight" in text


def test_says_so_where_nothing_was_measured_or_counted():
    dense = sample_report().dense.model_copy(update={"macs": None, "effective_macs": None})

    text = text_of(render_html(sample_report(benchmark=None, onnx=None, dense=dense, steps=[], seconds=0.0)))

    assert "Not measured: benchmark.backend is none." in text
    assert text.count("not counted") == 2
    assert "opset" not in text


def test_shows_checksums_versions_steps_and_the_whole_spec(page):
    text = text_of(page)

    assert "a" * 64 in text
    assert "torch 2.14.1" in text
    assert "finetune#5 finished 12.9 s" in text
    assert '"uri": "s3://zoo/fashion-resnet/"' in text


def test_shows_widths_stages_sensitivity_and_decisions_where_a_job_has_them():
    report = sample_report(
        groups=[
            GroupFigures(name="layer1.conv1", kind="channels", before=64, after=32),
            GroupFigures(name="fc", kind="neurons", before=10, after=10, reason=HOSTILE),
        ],
        stages=[
            Stage(
                name="quantized",
                metric=0.9052,
                file="model.int8.onnx",
                bytes=712_000,
                compressed_bytes=400_000,
                latency_ms={"1": 0.123, "32": 4.5},
            )
        ],
        curves=[
            Curve(name=f"layer{number}", shares=[0.5, 0.9], metrics=[0.9, 0.1 * number])
            for number in range(7)
        ],
        decisions=["The sweet spot is 70 %: the metric falls steeply after it."],
    )

    page = render_html(report)

    outline = Outline(page)
    text = " ".join(outline.text.split())
    for shown in (
        "layer1. conv1",
        "64",
        "712 kB",
        "batch 32: 4.500 ms",
        "The sweet spot is",
        "left as it is",
    ):
        assert shown in text or shown.replace(" ", "") in text.replace(" ", "")
    labels = [value for tag, name, value in outline.attributes if tag == "svg" and name == "aria-label"]
    assert any(
        "layer0: 0.00\N{NO-BREAK SPACE}% at 90" in one or "layer0: 0.00 % at 90" in one for one in labels
    )
    assert "<script" not in page
    assert outline.open == []


def test_other_metrics_of_both_models_have_a_row_each():
    report = sample_report()
    dense = report.dense.model_copy(update={"metrics": {"top-5 accuracy": 0.9912, "only dense": 0.5}})
    pruned = report.pruned.model_copy(update={"metrics": {"top-5 accuracy": 0.9871}})

    page = render_html(report.model_copy(update={"dense": dense, "pruned": pruned}))

    row = '<th scope="row">Top-5 accuracy</th><td class="number">0.9912</td><td class="number">0.9871</td>'
    assert row in page
    assert "-0.0041" in page
    assert "Only dense" not in page
