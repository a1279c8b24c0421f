// The weights: base64 in the page, inside it gzip, inside that the codes of each tensor (lm/page/weights.py writes them).

/** The bytes of a base64 text. */
function bytesOf(base64) {
  const letters = atob(base64.trim()), bytes = new Uint8Array(letters.length);
  for (let i = 0; i < letters.length; i++) bytes[i] = letters.charCodeAt(i);
  return bytes;
}

async function unzipped(bytes) {
  const stream = new Response(bytes).body.pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

/** The value of each of the 65,536 float16 numbers. */
function halves() {
  const table = new Float32Array(65536);
  for (let code = 0; code < 65536; code++) {
    const exponent = code >> 10 & 31, fraction = code & 1023;
    const size = exponent ? (1 + fraction / 1024) * 2 ** (exponent - 15) : fraction * 2 ** -24; // below 2^-14: subnormal
    table[code] = code & 32768 ? -size : size;
  }
  return table;
}

/** {name: {shape, values: Float32Array}} of the tensors that `listed` names, in the order of `bytes`. */
function unpacked(listed, bytes) {
  const half = halves(), tensors = {};
  let at = 0;
  for (const { name, shape, kind, scale } of listed) {
    const count = shape.reduce((a, b) => a * b, 1), values = new Float32Array(count);
    if (kind === "int8") {
      const columns = shape[1], scales = new DataView(bytes.buffer, at, 4 * shape[0]);
      const codes = new Int8Array(bytes.buffer, at + 4 * shape[0], count);
      for (let row = 0, i = 0; row < shape[0]; row++) {
        const step = scales.getFloat32(4 * row, true);
        for (let column = 0; column < columns; column++, i++) values[i] = codes[i] * step;
      }
      at += 4 * shape[0] + count;
    } else {
      // all low bytes stand before all high ones
      for (let i = 0; i < count; i++) values[i] = half[bytes[at + i] | bytes[at + count + i] << 8] * scale;
      at += 2 * count;
    }
    tensors[name] = { shape, values };
  }
  return tensors;
}
