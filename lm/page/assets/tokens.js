// Text to token ids and back, as lm/text does it. `read` gives {id, from, to, unknown}: a token, the part of the text that
// it stands for (in UTF-16 units; nothing, where it is a part of a character) and whether the vocabulary lacks it.

const EOS = 0; // stands behind each document and is never read from text
const UTF8 = new TextEncoder();

/** [first, one past the last] pairs from distances in base 36. */
function rangesOf(text) {
  const ranges = [];
  let at = 0;
  for (const [i, distance] of text.split(" ").filter(Boolean).entries()) {
    at += parseInt(distance, 36);
    if (i % 2) ranges.at(-1).push(at);
    else ranges.push([at]);
  }
  return ranges;
}

/** The same as the source of a regular expression's class (flag v), so that the browser's own Unicode does not matter. */
function classOf(text) {
  const point = c => `\\u{${c.toString(16)}}`;
  return `[${rangesOf(text).map(([a, b]) => `${point(a)}-${point(b - 1)}`).join("")}]`;
}

function setOf(text) {
  const found = new Set();
  for (const [a, b] of rangesOf(text)) for (let c = a; c < b; c++) found.add(c);
  return found;
}

/** Bytes to text as they come; what is no UTF-8 becomes U+FFFD. */
class ByteDecoder {
  constructor() {
    this.utf8 = new TextDecoder("utf-8", { ignoreBOM: true });
  }
  push(bytes) {
    return this.utf8.decode(Uint8Array.from(bytes), { stream: true });
  }
  flush() {
    return this.utf8.decode();
  }
}

// -- characters -------------------------------------------------------------------------------------------------------

/** One token a character; one that training did not see is spelled in half-bytes, ids 1 to 16. */
class CharTokenizer {
  constructor(told) {
    this.characters = Array.from(told.characters);
    this.ids = new Map(this.characters.map((c, i) => [c, i + 17]));
    this.size = 17 + this.characters.length;
  }

  read(text) {
    const tokens = [];
    let at = 0;
    for (const c of text) {
      const end = at + c.length, id = this.ids.get(c);
      if (id !== undefined) {
        tokens.push({ id, from: at, to: end, unknown: false });
      } else {
        const halves = Array.from(UTF8.encode(c)).flatMap(byte => [byte >> 4, byte & 15]);
        halves.forEach((half, i) => {
          tokens.push({ id: 1 + half, from: at, to: i === halves.length - 1 ? end : at, unknown: true });
        });
      }
      at = end;
    }
    return tokens;
  }

  decoder() {
    let high = null;
    const bytes = new ByteDecoder(), flush = () => (high = null, bytes.flush());
    return {
      flush,
      push: id => {
        if (id === EOS || id >= 17) return flush() + (id === EOS ? "" : this.characters[id - 17]);
        if (high === null) return high = id - 1, "";
        const byte = high << 4 | id - 1;
        high = null;
        return bytes.push([byte]);
      },
    };
  }

  show(id) {
    return id < 17 ? `half-byte ${(id - 1).toString(16)}` : this.characters[id - 17];
  }
}

// -- words ------------------------------------------------------------------------------------------------------------

/** The tokens of a line so far, as much of them as the next gap depends on. */
class Line {
  constructor(closing, opening) {
    Object.assign(this, { closing, opening, last: "", quoted: false });
  }
  /** The white space expected before `token`. */
  gap(token) {
    if (!this.last || this.closing.has(token) || this.opening.has(this.last)) return "";
    if (token === '"' || this.last === '"') return this.quoted ? "" : " ";
    return " ";
  }
  add(token) {
    this.last = token;
    if (token === '"') this.quoted = !this.quoted;
  }
}

/** One token a word or mark; white space is a token only where it is not what one expects. */
class WordTokenizer {
  static UNK = 1;
  static JOIN = 2;

  constructor(told) {
    this.types = told.types;
    this.ids = new Map(told.types.map((type, i) => [type, i + 3]));
    this.size = 3 + told.types.length;
    this.unknown = told.unknown;
    this.spaces = told.split === "spaces";
    this.longestGap = told.longestGap ?? Infinity;
    const classes = Object.fromEntries(Object.entries(told.classes).map(([name, text]) => [name, classOf(text)]));
    this.piece = new RegExp(told.pattern.replace(/<(\w)>/g, (_, name) => classes[name]), "gsv");
    this.blank = new RegExp(`^${classes.space}+$`, "v");
    this.solid = new RegExp(`[^${classes.space}]+`, "gv");
    this.line = () => new Line(new Set(told.closing), new Set(told.opening));
    if (told.lower) {
      const pairs = told.lower.pairs.split("\0").filter(Boolean).map(pair => Array.from(pair));
      this.lowered = new Map(pairs.map(([c, ...low]) => [c, low.join("")]));
      this.cased = setOf(told.lower.cased);
      this.ignored = setOf(told.lower.ignored);
    }
  }

  read(text) {
    const { raw, origin } = this.lower(text);
    const tokens = [];
    const push = (id, from, to, unknown) => tokens.push({ id, from: origin(from), to: origin(to), unknown });
    for (const [word, from, to] of this.cut(raw)) {
      if (word === null) {
        push(WordTokenizer.JOIN, from, from, false);
      } else if (!this.ids.has(word) && this.blank.test(word) && word.length <= this.longestGap) {
        for (let i = from; i < to; i++) push(this.ids.get(raw[i]) ?? this.unknown, i, i + 1, !this.ids.has(raw[i]));
      } else {
        push(this.ids.get(word) ?? this.unknown, from, to, !this.ids.has(word));
      }
    }
    // a token also stands for the expected white space before it, which is no token
    let at = 0;
    for (const token of tokens) [token.from, at] = [Math.min(at, token.from), token.to];
    return tokens;
  }

  /** [word, from, to]; null for an unexpected lack of white space. */
  cut(raw) {
    if (this.spaces) return Array.from(raw.matchAll(this.solid), m => [m[0], m.index, m.index + m[0].length]);
    const parts = [];
    let line = this.line(), pending = "", from = 0;
    for (const { 0: part, index } of raw.matchAll(this.piece)) {
      if (this.blank.test(part)) {
        [pending, from] = [part, index];
        continue;
      }
      if (pending !== line.gap(part)) {
        parts.push(pending ? [pending, from, index] : [null, index, index]);
        if (pending.includes("\n")) line = this.line();
      }
      parts.push([part, index, index + part.length]);
      line.add(part);
      pending = "";
    }
    if (pending) parts.push([pending, from, from + pending.length]);
    return parts;
  }

  /** The text in lower case where the vocabulary is, as Python lowers it, and where each place of it comes from. */
  lower(text) {
    if (!this.lowered) return { raw: text, origin: at => at };
    const letters = Array.from(text), places = [0];
    let raw = "", at = 0;
    letters.forEach((letter, i) => {
      const low = letter === "Σ" ? (this.final(letters, i) ? "ς" : "σ") : this.lowered.get(letter) ?? letter;
      at += letter.length;
      for (let k = 1; k < low.length; k++) places.push(at - letter.length);
      places.push(at);
      raw += low;
    });
    return { raw, origin: place => places[place] };
  }

  /** Whether a sigma ends its word: behind a cased letter and before none, whatever is ignored between. */
  final(letters, at) {
    const cased = step => {
      let i = at + step;
      while (i in letters && this.ignored.has(letters[i].codePointAt())) i += step;
      return i in letters && this.cased.has(letters[i].codePointAt());
    };
    return cased(-1) && !cased(1);
  }

  decoder() {
    let line = this.line(), explicit = true; // the gap before the next token is settled
    return {
      flush: () => "",
      push: id => {
        if (id === EOS || id === WordTokenizer.JOIN) {
          if (id === EOS) line = this.line();
          explicit = true;
          return "";
        }
        const text = id === WordTokenizer.UNK ? "<unk>" : this.types[id - 3];
        if (this.blank.test(text)) {
          explicit = true;
          if (text.includes("\n")) line = this.line();
          return text;
        }
        const between = explicit ? "" : this.spaces ? " " : line.gap(text);
        explicit = false;
        line.add(text);
        return between + text;
      },
    };
  }

  show(id) {
    return id === WordTokenizer.UNK ? "unknown word" : id === WordTokenizer.JOIN ? "no space" : this.types[id - 3];
  }
}

// -- byte pairs -------------------------------------------------------------------------------------------------------

/** Byte-level byte pairs: text is cut into pieces, and in each the pair of the lowest rank is merged first. */
class BpeTokenizer {
  constructor(told) {
    const printable = new Map(byteCharacters().map((c, byte) => [c, byte]));
    const ids = new Map(told.tokens.map((token, id) => [token, id]));
    this.bytes = told.tokens.map(token => Array.from(token, c => printable.get(c)));
    this.size = 1 + told.tokens.length;
    this.single = new Map(this.bytes.flatMap((bytes, id) => bytes.length === 1 ? [[bytes[0], id]] : []));
    this.merges = new Map(told.merges.map(([a, b], rank) => {
      return [a * this.size + b, { rank, id: ids.get(told.tokens[a] + told.tokens[b]) }];
    }));
    this.longest = told.longest;
    const [L, N, S] = ["L", "N", "S"].map(name => classOf(told.classes[name]));
    this.piece = new RegExp(
      `'s|'t|'re|'ve|'m|'ll|'d| ?${L}+| ?${N}+| ?[^${S}${L}${N}]+|${S}+(?![^${S}])|${S}+`, "gv",
    );
  }

  read(text) {
    const tokens = [];
    let from = 0;
    for (const { 0: piece, index } of text.matchAll(this.piece)) {
      const bytes = UTF8.encode(piece), place = [0]; // behind so many bytes so much of the piece is complete
      let at = 0;
      for (const c of piece) {
        const length = UTF8.encode(c).length;
        for (let k = 1; k < length; k++) place.push(at);
        place.push(at += c.length);
      }
      let end = 0;
      for (const id of this.chunks(bytes).flatMap(chunk => this.merged(chunk))) {
        end += this.bytes[id].length;
        tokens.push({ id: 1 + id, from, to: index + place[end], unknown: false });
        from = index + place[end];
      }
    }
    return tokens;
  }

  /** A piece cut between characters, each part as long as may be. */
  chunks(bytes) {
    const parts = [];
    for (let begin = 0; begin < bytes.length;) {
      let end = Math.min(begin + this.longest, bytes.length);
      while (end < bytes.length && (bytes[end] & 0xc0) === 0x80) end--;
      parts.push(bytes.subarray(begin, end));
      begin = end;
    }
    return parts;
  }

  merged(bytes) {
    const ids = Array.from(bytes, byte => this.single.get(byte));
    for (;;) {
      let best = null, where = -1;
      for (let i = 0; i + 1 < ids.length; i++) {
        const merge = this.merges.get(ids[i] * this.size + ids[i + 1]);
        if (merge && (!best || merge.rank < best.rank)) [best, where] = [merge, i];
      }
      if (!best) return ids;
      ids.splice(where, 2, best.id);
    }
  }

  decoder() {
    const bytes = new ByteDecoder(), flush = () => bytes.flush();
    return { flush, push: id => id === EOS ? flush() : bytes.push(this.bytes[id - 1]) };
  }

  show(id) {
    return new TextDecoder("utf-8", { ignoreBOM: true }).decode(Uint8Array.from(this.bytes[id - 1]));
  }
}

/** The printable character that stands for each byte in byte-level byte pairs (Radford et al. 2019). */
function byteCharacters() {
  let other = 256;
  const printable = b => (b > 32 && b < 127) || (b > 160 && b < 173) || b > 173;
  return Array.from({ length: 256 }, (_, b) => String.fromCharCode(printable(b) ? b : other++));
}

function tokenizerOf(told) {
  return new { char: CharTokenizer, word: WordTokenizer, bpe: BpeTokenizer }[told.kind](told);
}

/** The ids that Python's `encode` gives; half a surrogate pair, which is no text, is read as U+FFFD. */
function encode(tokenizer, text) {
  return tokenizer.read(text.toWellFormed()).map(token => token.id);
}
