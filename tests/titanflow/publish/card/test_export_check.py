from titanflow.publish.card.export_check import export_check


def test_what_was_measured_in_words() -> None:
    figures = {"relative_error": 9.12e-8, "argmax_agreement": 1.0, "positions": 1024.0}
    figures |= {"greedy_agreement": 1.0, "greedy_tokens": 64.0}
    assert export_check(figures) == (
        "its logits differ by at most 9.1e-08 of the largest, the likeliest token is the same at all of 1,024 "
        "positions, it generates the same tokens (all of 64)"
    )
    assert export_check({"argmax_agreement": 0.9961}) == "the likeliest token is the same at 99.6% of the positions"
    assert export_check({}) == ""
