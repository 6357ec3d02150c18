// Scores of every pair in a batch, and the bound that they give.

const BATCHES = 24; // the estimate is a mean over so many batches; the first one is shown
const ROOM = 64; // draws are made for the largest batch and read from the start

/** Correlated Gaussian codes of one batch: pairs of [items][dims]. */
function drawPairs(seed, dims) {
  const { normal } = createNormal(seed);
  return Array.from({ length: ROOM }, () => [Array.from({ length: dims }, normal), Array.from({ length: dims }, normal)]);
}

const dot = (a, b) => { let sum = 0; for (let n = 0; n < a.length; n++) sum += a[n] * b[n]; return sum; };

/** Scores [K][K] of a critic: optimal is log p(b | a) / p(b), up to what depends on a alone. */
function scoreMatrix(pairs, K, { correlation: r, temperature, critic }) {
  const left = pairs.slice(0, K).map(([a]) => a);
  const right = pairs.slice(0, K).map(([a, e]) => a.map((v, n) => r * v + Math.sqrt(1 - r * r) * e[n]));
  const norm = (v) => Math.sqrt(dot(v, v)) || 1;
  const s = 1 - r * r;
  return left.map((a) => right.map((b) => {
    const value = critic === "optimal" ? (r * dot(a, b) - 0.5 * r * r * (dot(a, a) + dot(b, b))) / s - 0.5 * a.length * Math.log(s)
      : critic === "cosine" ? dot(a, b) / (norm(a) * norm(b)) : dot(a, b);
    return value / temperature;
  }));
}

/** InfoNCE with the positive among the contrasts and the factor K inside: never above log K. */
function infoNce(scores) {
  const K = scores.length;
  return scores.reduce((sum, row, n) => {
    const top = Math.max(...row);
    return sum + row[n] - top - Math.log(row.reduce((all, v) => all + Math.exp(v - top), 0) / K);
  }, 0) / K;
}

function renderInfonceMatrix(context) {
  const { model } = context;
  const { dims } = model.get("options");
  const { message, write, say, reset, start } = createExplorer(context, "mx-infonce", ["correlation", "items", "temperature", "critic"]);
  const batches = Array.from({ length: BATCHES }, (_, n) => drawPairs(n + 1, dims));
  const critic = createChoice("Critic", [["optimal", "log density ratio"], ["inner", "inner product"], ["cosine", "cosine"]].map(([value, face]) => ({ value, face })),
    (value) => write({ critic: value }));
  const sizes = [2, 4, 8, 16, 32, 64];
  const dials = {
    correlation: createDial("correlation \u03C1", { label: "correlation of the pairs", min: 0, max: 0.99, step: 0.01, onInput: (v) => write({ correlation: v }) }),
    items: createDial("batch K", { label: "items in a batch", min: 0, max: 5, step: 1, onInput: (n) => write({ items: sizes[n] }) }),
    temperature: createDial("temperature \u03C4", { label: "temperature of the scores", min: -3, max: 1.6, step: 0.05, onInput: (v) => write({ temperature: clamp(Math.exp(v), 0.05, 5) }) }),
  };
  const canvas = create("canvas", { class: "mx-matrix mx-picture", role: "img" });
  const bars = ["InfoNCE", "ceiling log K", "mutual information"].map((face, n) => {
    const bar = create("i");
    const value = create("span", { class: "mx-share-text" });
    return { bar, value, node: create("div", { class: `mx-gauge mx-c${n}` }, create("span", {}, face), create("div", { "aria-hidden": "true" }, bar), value) };
  });
  const paint = () => {
    const state = Object.fromEntries(["correlation", "items", "temperature", "critic"].map((key) => [key, model.get(key)]));
    const K = state.items;
    critic.show(state.critic);
    dials.correlation.show(state.correlation, formatNumber(state.correlation));
    dials.items.show(sizes.indexOf(K), String(K));
    dials.temperature.show(Math.log(state.temperature), formatNumber(state.temperature));
    const scores = scoreMatrix(batches[0], K, state);
    const count = K > 32 ? 8 : BATCHES;
    const estimate = batches.slice(0, count).reduce((sum, pairs) => sum + infoNce(scoreMatrix(pairs, K, state)), 0) / count;
    const exact = -0.5 * dims * Math.log(1 - state.correlation ** 2);
    const ceiling = Math.log(K);
    setAttributes(canvas, { width: K, height: K });
    const context2d = canvas.getContext("2d");
    const picture = context2d.createImageData(K, K);
    // Each row as the classifier sees it: its softmax over the contrasts.
    scores.forEach((row, i) => {
      const top = Math.max(...row);
      const total = row.reduce((sum, v) => sum + Math.exp(v - top), 0);
      row.forEach((v, j) => heat(Math.sqrt(Math.exp(v - top) / total), picture.data, 4 * (i * K + j)));
    });
    context2d.putImageData(picture, 0, 0);
    const longest = Math.max(ceiling, exact, estimate, 0.1);
    [estimate, ceiling, exact].forEach((value, n) => {
      bars[n].bar.style.width = `${(100 * Math.max(0, value)) / longest}%`;
      bars[n].value.textContent = `${formatNumber(value)} nats`;
    });
    const why = ceiling < exact ? "The ceiling log K lies below the mutual information, so no critic could reach it."
      : state.critic === "optimal" && Math.abs(state.temperature - 1) < 0.03 ? "This critic is the best there is: what is missing comes from the size of the batch."
        : "The critic, not the batch, costs the rest.";
    const text = `InfoNCE ${formatNumber(estimate)} nats of ${formatNumber(exact)}. ${why}`;
    canvas.setAttribute("aria-label", `Each row: how a code chooses among the ${K} partners; its own is on the diagonal. ${text}`);
    say(text);
  };
  return start([
    create("div", { class: "mx-head" }, critic.node, reset()),
    create("div", { class: "mx-main" }, create("div", { class: "mx-view" }, canvas,
      create("p", { class: "mx-caption" }, "row: one code; bright: where it sees its partner; the truth is the diagonal")),
      create("div", { class: "mx-side" }, create("div", { class: "mx-dials" }, ...Object.values(dials).map(({ node }) => node)),
        create("div", { class: "mx-gauges" }, ...bars.map(({ node }) => node)))),
    message], paint);
}
