// The decoder engine: weights of half precision in, pictures out.
// Plain declarations only: bundle.py makes an ES module or a classic script of them.

/** Half precision to single, straight into the bits of a Float32Array. */
function unpackWeights(view, count) {
  if (view.byteLength !== 2 * count) {
    throw new Error(`The weights hold ${view.byteLength} bytes, but the layers need ${2 * count}.`);
  }
  const values = new Float32Array(count);
  const bits = new Uint32Array(values.buffer);
  for (let n = 0; n < count; n++) {
    const half = view.getUint16(2 * n, true);
    const sign = (half & 0x8000) << 16;
    const exponent = (half >> 10) & 31;
    const fraction = half & 1023;
    if (exponent === 0) values[n] = (sign ? -1 : 1) * fraction * 2 ** -24;
    else bits[n] = sign | ((exponent === 31 ? 255 : exponent + 112) << 23) | (fraction << 13);
  }
  return values;
}

const elementwise = {
  relu: (x) => (x > 0 ? x : 0),
  silu: (x) => x / (1 + Math.exp(-x)),
  tanh: Math.tanh,
  sigmoid: (x) => 1 / (1 + Math.exp(-x)),
};

function linear(layer, weights, x) {
  if (x.length !== layer.inputs) {
    throw new Error(`A linear layer wants ${layer.inputs} inputs and was given ${x.length}.`);
  }
  const y = new Float32Array(layer.outputs);
  for (let o = 0; o < layer.outputs; o++) {
    let sum = layer.bias === null ? 0 : weights[layer.bias + o];
    const row = layer.weight + o * layer.inputs;
    for (let i = 0; i < layer.inputs; i++) sum += weights[row + i] * x[i];
    y[o] = sum;
  }
  return y;
}

function softmax(x) {
  const largest = x.reduce((a, b) => Math.max(a, b), -Infinity);
  const powers = x.map((v) => Math.exp(v - largest));
  const total = powers.reduce((a, b) => a + b, 0);
  return powers.map((v) => v / total);
}

/** Run one latent vector through the layers; returns the flat output. */
function decode(layers, weights, z) {
  let x = Float32Array.from(z);
  for (const layer of layers) {
    if (layer.op === "linear") x = linear(layer, weights, x);
    else if (layer.op === "softmax") x = softmax(x);
    else if (layer.op === "unflatten") continue; // the order in memory stays the same
    else if (Object.hasOwn(elementwise, layer.op)) x = x.map(elementwise[layer.op]);
    else throw new Error(`This page's decoder does not know the layer "${layer.op}".`);
  }
  return x;
}
