// From a log-mel spectrum back to sound: mel pseudo-inverse, then Griffin-Lim. Part of the engine, so it runs in the worker.

/** The triangles of the filter bank over FFT frequencies, each [first bin, weights]; peaks of 1, equally far apart in mel. */
function melTriangles({ rate, size, bins }) {
  const mel = (hz) => 1127 * Math.log1p(hz / 700);
  const corners = Array.from({ length: bins + 2 }, (_, n) => 700 * Math.expm1((n / (bins + 1)) * mel(rate / 2) / 1127));
  return Array.from({ length: bins }, (_, k) => {
    const [low, peak, high] = corners.slice(k, k + 3);
    const first = Math.floor((low * size) / rate) + 1;
    const last = Math.min(size / 2, Math.ceil((high * size) / rate) - 1);
    const weights = new Float64Array(Math.max(0, last - first + 1));
    for (let n = 0; n < weights.length; n++) {
      const hz = ((first + n) * rate) / size;
      weights[n] = Math.max(0, Math.min((hz - low) / (peak - low), (high - hz) / (high - peak)));
    }
    return { first, weights };
  });
}

/**
 * Spectral energies [size / 2 + 1] whose bands hold the given mel energies. The start is the pseudo-inverse F (F'F)^-1 e: a
 * triangle overlaps only its neighbours, so F'F is tridiagonal. It may be negative, so it is floored by spreading each band's
 * energy over its triangle, and multiplicative steps then fit the bands without leaving the positive side.
 */
function createMelInverse(triangles, frequencies) {
  const count = triangles.length;
  const overlap = (k, l) => {
    let sum = 0;
    const { first, weights } = triangles[k];
    for (let n = 0; n < weights.length; n++) sum += weights[n] * (triangles[l].weights[first + n - triangles[l].first] ?? 0);
    return sum;
  };
  const diagonal = triangles.map((_, k) => overlap(k, k));
  const beside = triangles.map((_, k) => (k + 1 < count ? overlap(k, k + 1) : 0));
  const mass = new Float64Array(frequencies);
  for (const { first, weights } of triangles) weights.forEach((w, n) => { mass[first + n] += w; });
  const each = (act) => {
    for (let k = 0; k < count; k++) {
      const { first, weights } = triangles[k];
      for (let n = 0; n < weights.length; n++) act(k, first + n, weights[n]);
    }
  };
  const solved = new Float64Array(count), scaled = new Float64Array(count), bands = new Float64Array(count);
  const spread = new Float64Array(frequencies), share = new Float64Array(frequencies);
  return (energies, out, steps = 12) => {
    let pivot = diagonal[0];
    for (let k = 0; k < count; k++) {
      if (k > 0) pivot = diagonal[k] - beside[k - 1] * scaled[k - 1];
      scaled[k] = beside[k] / pivot;
      solved[k] = (energies[k] - (k > 0 ? beside[k - 1] * solved[k - 1] : 0)) / pivot;
    }
    for (let k = count - 2; k >= 0; k--) solved[k] -= scaled[k] * solved[k + 1];
    out.fill(0);
    spread.fill(0);
    each((k, f, w) => {
      out[f] += w * solved[k];
      spread[f] += (w * energies[k]) / (2 * diagonal[k]);
    });
    for (let f = 0; f < frequencies; f++) out[f] = Math.max(out[f], 0.1 * spread[f]);
    for (let step = 0; step < steps; step++) {
      bands.fill(0);
      share.fill(0);
      each((k, f, w) => { bands[k] += w * out[f]; });
      each((k, f, w) => { share[f] += bands[k] > 0 ? (w * energies[k]) / bands[k] : 0; });
      for (let f = 0; f < frequencies; f++) out[f] *= mass[f] > 0 ? share[f] / mass[f] : 0;
    }
    return out;
  };
}

/** In-place FFT of a power of two; the inverse lacks its division by the size. */
function createFft(size) {
  const bits = Math.log2(size);
  const turned = Uint16Array.from({ length: size }, (_, n) => {
    let r = 0;
    for (let b = 0; b < bits; b++) r |= ((n >> b) & 1) << (bits - 1 - b);
    return r;
  });
  const cosine = Float64Array.from({ length: size / 2 }, (_, n) => Math.cos((2 * Math.PI * n) / size));
  const sine = Float64Array.from({ length: size / 2 }, (_, n) => Math.sin((2 * Math.PI * n) / size));
  return (re, im, inverse) => {
    for (let n = 0; n < size; n++) {
      const m = turned[n];
      if (m > n) {
        const a = re[n], b = im[n];
        re[n] = re[m]; im[n] = im[m];
        re[m] = a; im[m] = b;
      }
    }
    for (let half = 1; half < size; half *= 2) {
      const stride = size / (2 * half);
      for (let start = 0; start < size; start += 2 * half) {
        for (let n = 0; n < half; n++) {
          const c = cosine[n * stride], s = inverse ? sine[n * stride] : -sine[n * stride];
          const i = start + n, j = i + half;
          const a = re[j] * c - im[j] * s, b = re[j] * s + im[j] * c;
          re[j] = re[i] - a; im[j] = im[i] - b;
          re[i] += a; im[i] += b;
        }
      }
    }
  };
}

/**
 * Sound whose short-time spectra have the given magnitudes (Griffin and Lim 1984, with the momentum of Perraudin et al. 2013).
 * Two real frames share one complex FFT. The first phases are those of noise, the same every time.
 */
function griffinLim(magnitudes, { size, window: length, hop }, iterations = 40, momentum = 0.9) {
  const frames = magnitudes.length, bins = size / 2 + 1;
  const fft = createFft(size);
  const window = Float64Array.from({ length }, (_, n) => 0.5 - 0.5 * Math.cos((2 * Math.PI * n) / length));
  const samples = length + (frames - 1) * hop;
  const weight = new Float64Array(samples);
  for (let t = 0; t < frames; t++) for (let n = 0; n < length; n++) weight[t * hop + n] += window[n] ** 2;
  const sound = new Float64Array(samples), next = new Float64Array(samples);
  const last = Array.from({ length: frames }, () => [new Float64Array(bins), new Float64Array(bins)]);
  const re = new Float64Array(size), im = new Float64Array(size);
  let seed = 1;
  const noise = () => (seed = (seed * 48271) % 2147483647) / 2147483647 - 0.5;
  for (let n = 0; n < samples; n++) sound[n] = noise();

  let real = 0, imaginary = 0; // what project leaves behind
  /** The spectrum (a, b) of frame t gets its magnitude, and the phase that momentum asks for. */
  const project = (t, k, a, b) => {
    if (t >= frames) { real = imaginary = 0; return; }
    const [x, y] = last[t];
    const u = a + momentum * (a - x[k]), v = b + momentum * (b - y[k]);
    x[k] = a; y[k] = b;
    const scale = magnitudes[t][k] / (Math.sqrt(u * u + v * v) || 1);
    real = u * scale; imaginary = v * scale;
  };
  for (let turn = 0; turn < iterations; turn++) {
    next.fill(0);
    for (let t = 0; t < frames; t += 2) {
      re.fill(0); im.fill(0);
      const at = t * hop, paired = t + 1 < frames;
      for (let n = 0; n < length; n++) {
        re[n] = sound[at + n] * window[n];
        if (paired) im[n] = sound[at + hop + n] * window[n];
      }
      fft(re, im, false);
      for (let k = 0; k < bins; k++) {
        const m = (size - k) % size;
        project(t, k, (re[k] + re[m]) / 2, (im[k] - im[m]) / 2);
        const a = real, b = imaginary;
        project(t + 1, k, (im[k] + im[m]) / 2, (re[m] - re[k]) / 2);
        const c = real, d = imaginary;
        re[k] = a - d; im[k] = b + c;
        re[m] = a + d; im[m] = c - b;
      }
      fft(re, im, true);
      for (let n = 0; n < length; n++) {
        next[at + n] += (re[n] / size) * window[n];
        if (paired) next[at + hop + n] += (im[n] / size) * window[n];
      }
    }
    for (let n = 0; n < samples; n++) sound[n] = next[n] / Math.max(weight[n], 1e-3);
  }
  return Float32Array.from(sound);
}

/** The sound of a decoded spectrum [frames, bins] on the scale of the models; `scale` holds the constants of mmvae_lite.data.audio. */
function synthesise(spectrum, scale) {
  const frames = spectrum.length / scale.bins, frequencies = scale.size / 2 + 1;
  const inverse = createMelInverse(melTriangles(scale), frequencies);
  const energies = new Float64Array(scale.bins), out = new Float64Array(frequencies);
  const magnitudes = Array.from({ length: frames }, (_, t) => {
    for (let k = 0; k < scale.bins; k++) {
      energies[k] = Math.max(0, Math.exp(spectrum[t * scale.bins + k] * scale.spread + scale.centre) - scale.floor);
    }
    return Float64Array.from(inverse(energies, out), Math.sqrt);
  });
  return griffinLim(magnitudes, scale);
}
