// Drawing tokens: a seed gives the same draws again, on this page (not those of `lm generate`, whose generator is torch's).

/** Numbers in [0, 1) from a seed: mulberry32, a counter whose bits are mixed. */
function generator(seed) {
  let counter = seed >>> 0;
  return () => {
    counter = counter + 0x6d2b79f5 >>> 0;
    let mixed = Math.imul(counter ^ counter >>> 15, counter | 1);
    mixed ^= mixed + Math.imul(mixed ^ mixed >>> 7, mixed | 61);
    return ((mixed ^ mixed >>> 14) >>> 0) / 2 ** 32;
  };
}

/**
 * A token from softmax(logits / temperature), limited to the `topK` likeliest (0: all) and without those in `never`.
 * Temperature 0 takes the likeliest, the lowest id on a tie.
 */
function pick(logits, { temperature, topK, never }, random) {
  let ids = Array.from(logits.keys()).filter(id => !never.includes(id));
  if (topK > 0 && topK < ids.length) ids = ids.sort((a, b) => logits[b] - logits[a] || a - b).slice(0, topK);
  const best = ids.reduce((a, b) => logits[b] > logits[a] || (logits[b] === logits[a] && b < a) ? b : a);
  if (temperature === 0) return best;
  // the likeliest has logit 0, so that a tiny temperature cannot overflow
  const weights = ids.map(id => Math.exp((logits[id] - logits[best]) / temperature));
  let left = random() * weights.reduce((a, b) => a + b, 0);
  for (let i = 0; i < ids.length; i++) if ((left -= weights[i]) < 0) return ids[i];
  return best; // rounding left a little over
}
