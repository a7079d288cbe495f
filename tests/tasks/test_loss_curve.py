import base64

from tasks.ui.artifacts import loss_curve

RECORDS = [{"step": step, "loss": 8 - step / 100} for step in range(1, 401)]


def test_it_is_a_picture_that_stands_in_its_own_address():
    kind, data = loss_curve(RECORDS, "stdlib pretrain").split(",", 1)
    assert kind == "data:image/svg+xml;base64"
    assert "stdlib pretrain" in base64.b64decode(data).decode()


def test_one_point_is_no_curve():
    assert loss_curve([], "x") is None
