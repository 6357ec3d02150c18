// The decoder engine: weights of half precision in, pictures out.
// Plain declarations only: bundle.py puts them into one function, which the page calls and a worker is built from.

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

const sigmoid = (x) => 1 / (1 + Math.exp(-x));

/** What happens to every value alone, in place. */
const elementwise = {
  relu: (x) => { for (let n = 0; n < x.length; n++) if (x[n] < 0) x[n] = 0; },
  silu: (x) => { for (let n = 0; n < x.length; n++) x[n] *= sigmoid(x[n]); },
  tanh: (x) => { for (let n = 0; n < x.length; n++) x[n] = Math.tanh(x[n]); },
  sigmoid: (x) => { for (let n = 0; n < x.length; n++) x[n] = sigmoid(x[n]); },
  elu: (x, { alpha }) => { for (let n = 0; n < x.length; n++) if (x[n] < 0) x[n] = alpha * Math.expm1(x[n]); },
  leaky: (x, { slope }) => { for (let n = 0; n < x.length; n++) if (x[n] < 0) x[n] *= slope; },
  clamp: (x, { low, high }) => { for (let n = 0; n < x.length; n++) x[n] = Math.min(high, Math.max(low, x[n])); },
};

/** y[rows] = A[rows, columns] x, four rows at a time. */
function multiplyVector(A, start, rows, columns, x, y) {
  let row = 0;
  for (; row + 4 <= rows; row += 4) {
    let a = start + row * columns, b = a + columns, c = b + columns, d = c + columns;
    let p = 0, q = 0, r = 0, s = 0;
    for (let i = 0; i < columns; i++) {
      const v = x[i];
      p += A[a++] * v; q += A[b++] * v; r += A[c++] * v; s += A[d++] * v;
    }
    y[row] = p; y[row + 1] = q; y[row + 2] = r; y[row + 3] = s;
  }
  for (; row < rows; row++) {
    let sum = 0;
    for (let i = 0, a = start + row * columns; i < columns; i++) sum += A[a++] * x[i];
    y[row] = sum;
  }
}

/** C[rows, columns] = A[rows, inner] B[columns, inner]^T, in blocks of four by two that stay in registers. */
function multiply(A, start, rows, inner, B, from, columns, C) {
  const evenRows = rows - (rows % 4), evenColumns = columns - (columns % 2);
  for (let n = 0; n < evenColumns; n += 2) {
    for (let m = 0; m < evenRows; m += 4) {
      let a = start + m * inner, b = a + inner, c = b + inner, d = c + inner;
      let e = from + n * inner, f = e + inner;
      let p = 0, q = 0, r = 0, s = 0, t = 0, u = 0, v = 0, w = 0;
      for (let i = 0; i < inner; i++) {
        const x = B[e++], y = B[f++], j = A[a++], k = A[b++], l = A[c++], o = A[d++];
        p += j * x; q += k * x; r += l * x; s += o * x;
        t += j * y; u += k * y; v += l * y; w += o * y;
      }
      let at = m * columns + n;
      C[at] = p; C[at + 1] = t; at += columns;
      C[at] = q; C[at + 1] = u; at += columns;
      C[at] = r; C[at + 1] = v; at += columns;
      C[at] = s; C[at + 1] = w;
    }
  }
  const dot = (m, n) => {
    let sum = 0;
    for (let i = 0, a = start + m * inner, b = from + n * inner; i < inner; i++) sum += A[a++] * B[b++];
    C[m * columns + n] = sum;
  };
  for (let m = evenRows; m < rows; m++) for (let n = 0; n < columns; n++) dot(m, n);
  for (let n = evenColumns; n < columns; n++) for (let m = 0; m < evenRows; m++) dot(m, n);
}

const area = ([, height, width]) => height * width;

/** Each layer's function from the flat values before it to those after it; buffers are made once. */
const makers = {
  linear({ inputs, outputs, rows, weight, bias }, weights) {
    const y = new Float32Array(rows * outputs);
    return (x) => {
      if (x.length !== rows * inputs) throw new Error(`A linear layer wants ${rows * inputs} inputs and was given ${x.length}.`);
      if (rows === 1) multiplyVector(weights, weight, outputs, inputs, x, y);
      else multiply(x, 0, rows, inputs, weights, weight, outputs, y);
      if (bias !== null) for (let n = 0, o = 0; n < y.length; n++, o = o + 1 === outputs ? 0 : o + 1) y[n] += weights[bias + o];
      return y;
    };
  },

  embed({ positions, size, weight }, weights) {
    const y = new Float32Array(positions * size);
    return (words) => {
      for (let n = 0; n < positions; n++) y.set(weights.subarray(weight + words[n] * size, weight + (words[n] + 1) * size), n * size);
      return y;
    };
  },

  conv({ in: from, out, kernel: [rows, columns], stride, padding, weight, bias }, weights) {
    const [channels, height, width] = from;
    const inner = channels * rows * columns;
    const patches = new Float32Array(area(out) * inner);
    const y = new Float32Array(out[0] * area(out));
    return (x) => {
      let at = 0;
      for (let i = 0; i < out[1]; i++) {
        for (let j = 0; j < out[2]; j++) {
          const top = i * stride[0] - padding[0], left = j * stride[1] - padding[1];
          for (let c = 0; c < channels; c++) {
            for (let r = top; r < top + rows; r++) {
              const inside = r >= 0 && r < height;
              const start = (c * height + r) * width;
              for (let s = left; s < left + columns; s++) patches[at++] = inside && s >= 0 && s < width ? x[start + s] : 0;
            }
          }
        }
      }
      multiply(weights, weight, out[0], inner, patches, 0, area(out), y);
      addBias(y, out, weights, bias);
      return y;
    };
  },

  deconv({ in: from, out, kernel: [rows, columns], stride, padding, weight, bias }, weights) {
    const [channels, height, width] = from;
    const taps = out[0] * rows * columns;
    const turned = new Float32Array(taps * channels); // [out, row, column] x channel
    for (let c = 0; c < channels; c++) for (let t = 0; t < taps; t++) turned[t * channels + c] = weights[weight + c * taps + t];
    const pixels = new Float32Array(area(from) * channels);
    const spread = new Float32Array(taps * area(from));
    const y = new Float32Array(out[0] * area(out));
    return (x) => {
      for (let c = 0, at = 0; c < channels; c++) for (let n = 0; n < area(from); n++) pixels[n * channels + c] = x[at++];
      multiply(turned, 0, taps, channels, pixels, 0, area(from), spread);
      y.fill(0);
      let at = 0;
      for (let o = 0; o < out[0]; o++) {
        for (let r = 0; r < rows; r++) {
          for (let s = 0; s < columns; s++) {
            for (let i = 0; i < height; i++) {
              const row = i * stride[0] - padding[0] + r;
              const start = (o * out[1] + row) * out[2];
              for (let j = 0, column = s - padding[1]; j < width; j++, at++, column += stride[1]) {
                if (row >= 0 && row < out[1] && column >= 0 && column < out[2]) y[start + column] += spread[at];
              }
            }
          }
        }
      }
      addBias(y, out, weights, bias);
      return y;
    };
  },

  affine({ channels, size, scale, shift }, weights) { // batch normalisation in evaluation
    return (x) => {
      for (let c = 0, n = 0; c < channels; c++) {
        const a = weights[scale + c], b = weights[shift + c];
        for (let end = n + size; n < end; n++) x[n] = a * x[n] + b;
      }
      return x;
    };
  },

  upsample({ in: [channels, height, width], factor: [down, across] }) {
    const y = new Float32Array(channels * height * down * width * across);
    return (x) => {
      let at = 0;
      for (let row = 0; row < channels * height * down; row++) {
        const start = Math.floor(row / down) * width;
        for (let j = 0; j < width; j++) for (let k = 0; k < across; k++) y[at++] = x[start + j];
      }
      return y;
    };
  },

  maxpool({ in: [channels, height, width], out, kernel, stride }) {
    const y = new Float32Array(channels * area(out));
    return (x) => {
      let at = 0;
      for (let c = 0; c < channels; c++) {
        for (let i = 0; i < out[1]; i++) {
          for (let j = 0; j < out[2]; j++) {
            let largest = -Infinity;
            for (let r = i * stride[0]; r < i * stride[0] + kernel[0]; r++) {
              for (let s = j * stride[1]; s < j * stride[1] + kernel[1]; s++) largest = Math.max(largest, x[(c * height + r) * width + s]);
            }
            y[at++] = largest;
          }
        }
      }
      return y;
    };
  },

  lstm({ inputs, units, frames, input, hidden, bias }, weights) { // the same input at every frame
    const fixed = new Float32Array(4 * units), gates = new Float32Array(4 * units);
    const cell = new Float32Array(units);
    const y = new Float32Array(frames * units);
    return (z) => {
      multiplyVector(weights, input, 4 * units, inputs, z, fixed);
      for (let n = 0; n < 4 * units; n++) fixed[n] += weights[bias + n];
      cell.fill(0);
      gates.fill(0);
      for (let t = 0; t < frames; t++) {
        if (t > 0) multiplyVector(weights, hidden, 4 * units, units, y.subarray((t - 1) * units, t * units), gates);
        for (let n = 0, at = t * units; n < units; n++, at++) {
          const write = sigmoid(gates[n] + fixed[n]), keep = sigmoid(gates[units + n] + fixed[units + n]);
          const value = Math.tanh(gates[2 * units + n] + fixed[2 * units + n]);
          cell[n] = keep * cell[n] + write * value;
          y[at] = sigmoid(gates[3 * units + n] + fixed[3 * units + n]) * Math.tanh(cell[n]);
        }
      }
      return y;
    };
  },

  softmax({ size }) {
    return (x) => {
      for (let start = 0; start < x.length; start += size) {
        let largest = -Infinity, total = 0;
        for (let n = start; n < start + size; n++) largest = Math.max(largest, x[n]);
        for (let n = start; n < start + size; n++) total += x[n] = Math.exp(x[n] - largest);
        for (let n = start; n < start + size; n++) x[n] /= total;
      }
      return x;
    };
  },
};

function addBias(y, out, weights, bias) {
  if (bias === null) return;
  for (let o = 0, n = 0; o < out[0]; o++) {
    const b = weights[bias + o];
    for (let end = n + area(out); n < end; n++) y[n] += b;
  }
}

/** A function from one latent vector to the flat output, in a buffer that the next call writes over. */
function createDecoder(layers, weights) {
  const steps = layers.map((layer) => {
    if (Object.hasOwn(makers, layer.op)) return makers[layer.op](layer, weights);
    if (!Object.hasOwn(elementwise, layer.op)) throw new Error(`This page's decoder does not know the layer "${layer.op}".`);
    return (x) => { elementwise[layer.op](x, layer); return x; };
  });
  let input = new Float32Array(0);
  return (z) => {
    if (input.length !== z.length) input = new Float32Array(z.length);
    input.set(z);
    return steps.reduce((x, step) => step(x), input);
  };
}

/** Run one latent vector through the layers; returns the flat output. */
function decode(layers, weights, z) {
  return createDecoder(layers, weights)(z).slice();
}
