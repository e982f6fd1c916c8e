from serve.app import live_gauges
from serve.telemetry.metrics import Metrics


def test_every_metric_has_the_prefix_and_a_help_text():
    metrics = Metrics(lambda: {"chat_slots_live": 2.0})
    metrics.request("/v1/ask", "POST", 200, 0.1)
    metrics.stage("embed", 0.2)
    metrics.tokens(5, 7)
    metrics.cancelled("client")
    lines = metrics.render().decode().splitlines()
    names = {line.split("{")[0].split(" ")[0] for line in lines if not line.startswith("#")}
    assert all(name.startswith("tarsia_") for name in names)
    assert "tarsia_chat_slots_live 2.0" in lines
    assert 'tarsia_tokens_total{kind="completion"} 7.0' in lines
    assert len([line for line in lines if line.startswith("# HELP")]) >= 6


def test_gauges_are_read_at_each_scrape():
    values = iter([1.0, 2.0])
    metrics = Metrics(lambda: {"documents": next(values)})
    assert b"tarsia_documents 1.0" in metrics.render()
    assert b"tarsia_documents 2.0" in metrics.render()


def test_only_the_numbers_of_nested_statistics_become_gauges():
    stats = {"chat": {"slots_live": 1, "name": "m", "deep": {"x": 0.5}}, "documents": 3, "none": None}
    assert live_gauges(stats) == {"chat_slots_live": 1.0, "chat_deep_x": 0.5, "documents": 3.0}


def test_gauges_of_collections_carry_their_names() -> None:
    first = {"rows": 3, "recall": {"recall": 0.97}}
    stats = {"collections": {"a.b-c": first, "d": {"rows": 4, "recall": None}}}
    text = Metrics(lambda: live_gauges(stats)).render().decode()
    assert 'tarsia_collection_rows{collection="a.b-c"} 3.0' in text
    assert 'tarsia_collection_rows{collection="d"} 4.0' in text
    assert 'tarsia_collection_recall_recall{collection="a.b-c"} 0.97' in text
