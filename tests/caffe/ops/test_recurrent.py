import numpy as np
import pytest

import caffe
from tests.caffe.ops.checks import backward, check_gradients, forward, layer_net

RNG = np.random.default_rng(17)
T, N, X, S, H = 4, 3, 5, 2, 3  # steps, streams, inputs, static inputs, hidden units
FILLERS = "weight_filler { type: 'gaussian' std: 0.5 } bias_filler { type: 'gaussian' std: 0.5 }"
CONT = np.array([[0, 1, 0], [1, 1, 1], [1, 0, 1], [1, 1, 0]], np.float32)  # stream 1 continues the last pass


def randn(*shape):
    return RNG.normal(size=shape).astype(np.float32)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def rnn_loops(x, cont, blobs, static, state):
    w_xh, b_h, *rest = blobs
    w_static = rest.pop(0) if static is not None else None
    w_hh, w_ho, b_o = rest
    (h,), tops = state, []
    for t in range(len(x)):
        drive = x[t].reshape(N, -1) @ w_xh.T + b_h + (cont[t][:, None] * h) @ w_hh.T
        if static is not None:
            drive += static @ w_static.T
        h = np.tanh(drive)
        tops.append(np.tanh(h @ w_ho.T + b_o))
    return np.stack(tops), [h]


def lstm_loops(x, cont, blobs, static, state):
    w_xc, b_c, *rest = blobs
    w_static = rest.pop(0) if static is not None else None
    (w_hc,) = rest
    (h, c), tops = state, []
    for t in range(len(x)):
        gates = x[t].reshape(N, -1) @ w_xc.T + b_c + (cont[t][:, None] * h) @ w_hc.T
        if static is not None:
            gates += static @ w_static.T
        i, f, o, g = np.split(gates, 4, 1)
        c = cont[t][:, None] * sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        tops.append(h)
    return np.stack(tops), [h, c]


KINDS = {"RNN": (rnn_loops, 1), "LSTM": (lstm_loops, 2)}


def recurrent(kind, *shapes, expose="false", tops=1):
    text = f'type: "{kind}" recurrent_param {{ num_output: {H} expose_hidden: {expose} {FILLERS} }}'
    return layer_net(text, *shapes, tops=tops)


def blobs(net):
    return [blob.data.astype(np.float64) for blob in net.params["layer"]]


@pytest.mark.parametrize("static", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_passes_continue_where_cont_is_1(kind, static):
    loops, states = KINDS[kind]
    fixed = randn(N, S) if static else None
    net = recurrent(kind, (T, N, X), (T, N), *[(N, S)] * static)
    state = [np.zeros((N, H))] * states
    for _ in range(2):
        x = randn(T, N, X)
        want, state = loops(x, CONT, blobs(net), fixed, state)
        (top,) = forward(net, x, CONT, *[fixed] * static)
        np.testing.assert_allclose(top, want, atol=2e-6)  # float32 against float64, values below 1


@pytest.mark.parametrize(
    "kind, shapes",
    [
        ("RNN", [(H, X), (H,), (H, S), (H, H), (H, H), (H,)]),
        ("LSTM", [(4 * H, X), (4 * H,), (4 * H, S), (4 * H, H)]),
    ],
)
def test_blobs_are_in_the_order_of_the_unrolled_net(kind, shapes):
    net = recurrent(kind, (T, N, X), (T, N), (N, S))
    assert [b.shape for b in net.params["layer"]] == shapes
    del shapes[2]
    assert [b.shape for b in recurrent(kind, (T, N, X), (T, N)).params["layer"]] == shapes


@pytest.mark.parametrize("kind", KINDS)
def test_gradients(kind):
    net = recurrent(kind, (T, N, X), (T, N), (N, S))
    cont = CONT.copy()
    cont[0] = 0  # or every pass would start from another state
    check_gradients(net, randn(T, N, X), cont, randn(N, S), wrt=(0, 2))


@pytest.mark.parametrize("kind", KINDS)
def test_exposed_states(kind):
    loops, states = KINDS[kind]
    net = recurrent(kind, (T, N, X), (T, N), *[(1, N, H)] * states, expose="true", tops=1 + states)
    x, first = randn(T, N, X), [randn(1, N, H) for _ in range(states)]
    want, last = loops(x, CONT, blobs(net), None, [s[0] for s in first])
    for _ in range(2):  # nothing is carried over
        top, *found = forward(net, x, CONT, *first)
        np.testing.assert_allclose(top, want, atol=2e-6)
        for got, state in zip(found, last):
            np.testing.assert_allclose(got, state[None], atol=2e-6)
    diffs = backward(net, randn(T, N, H), *[randn(1, N, H)] * states)
    assert np.abs(diffs[0]).max() > 0
    for diff in diffs[2:]:  # as in Caffe, no gradient passes through the exposed states
        np.testing.assert_array_equal(diff, 0)


def test_inputs_of_any_rank_are_flattened():
    net = recurrent("LSTM", (T, N, 2, 3), (T, N))
    x = randn(T, N, 2, 3)
    want, _ = lstm_loops(x, CONT * 0, blobs(net), None, [np.zeros((N, H))] * 2)
    np.testing.assert_allclose(forward(net, x, CONT * 0)[0], want, atol=2e-6)


def test_lstm_unit():
    cell, gates, cont = randn(1, N, H), randn(1, N, 4 * H), np.array([[1, 0, 1]], np.float32)
    net = layer_net('type: "LSTMUnit"', cell.shape, gates.shape, cont.shape, tops=2)
    i, f, o, g = np.split(gates, 4, 2)
    c = cont[..., None] * sigmoid(f) * cell + sigmoid(i) * np.tanh(g)
    top_c, top_h = forward(net, cell, gates, cont)
    np.testing.assert_allclose(top_c, c, atol=2e-6)
    np.testing.assert_allclose(top_h, sigmoid(o) * np.tanh(c), atol=2e-6)
    check_gradients(net, cell, gates, cont, wrt=(0, 1))


@pytest.mark.parametrize(
    "shapes, text",
    [
        ([(T,), (T, N)], "at least 2 axes"),
        ([(T, N, X), (T, N, 1)], r"bottom\[1\] has shape \(4, 3, 1\).*\(4, 3\)"),
        ([(T, N, X), (T, N), (N + 1, S)], r"bottom\[2\] has shape \(4, 2\); wanted 2 inputs for 3 streams"),
        ([(T, N, X)], "2 to 3 bottom"),
    ],
)
def test_bad_bottoms(shapes, text):
    with pytest.raises(caffe.CaffeError, match=text):
        recurrent("LSTM", *shapes)


def test_bad_states_and_changes():
    with pytest.raises(caffe.CaffeError, match=r"bottom\[2\] has shape \(1, 2, 3\); wanted the state's \(1, 3, 3\)"):
        recurrent("RNN", (T, N, X), (T, N), (1, 2, H), expose="true", tops=2)
    with pytest.raises(caffe.CaffeError, match="num_output must be positive"):
        layer_net('type: "RNN"', (T, N, X), (T, N))
    net = recurrent("RNN", (T, N, X), (T, N))
    net.blobs["b0"].reshape(T + 1, N, X)
    with pytest.raises(caffe.CaffeError, match=r"timesteps changed: bottom\[0\] has shape \(5, 3, 5\); wanted 4 steps"):
        net.reshape()
    with pytest.raises(caffe.CaffeError, match=r"\(1, N, H\), \(1, N, 4H\), \(1, N\)"):
        layer_net('type: "LSTMUnit"', (1, N, H), (1, N, H), (1, N), tops=2)
