// Inputs made from a corpus by small changes, the same for the same seed.

/** xorshift32. */
export class Random {
  #state;

  constructor(seed) {
    this.#state = seed >>> 0 || 1;
  }

  next() {
    let x = this.#state;
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    this.#state = x >>> 0;
    return this.#state;
  }

  /** 0 to n - 1. */
  below(n) {
    return this.next() % n;
  }

  of(list) {
    return list[this.below(list.length)];
  }
}

const bytesWorthTrying = [0, 1, 7, 8, 10, 18, 26, 34, 42, 58, 127, 128, 254, 255];
const textWorthTrying = [
  '"', '\\', '[', ']', '{', '}', ',', ':', '-', '.', 'e', '0', '9', 'NaN', 'Infinity', '-Infinity',
  'null', 'true', 'false', '1e999', '-0', '1e-400', '18446744073709551616', '-9223372036854775809',
  '9007199254740993', '""', '"\\u0000"', '[]', '{}', '[[', ']]', ' ', '\n', '\u00fc', '"__proto__"',
  '"shape"', '"data"', '"inputs"', '"parameters"', '[-1]', '[1e9,1e9]', '[9007199254740991,2]',
  '"binary_data_size":', '"shared_memory_region":"r",', '4294967296',
]; // prettier-ignore

/** @param {Random} random @param {Buffer[]} corpus @param {boolean} text */
export function mutated(random, corpus, text) {
  let bytes = Buffer.from(random.of(corpus));
  for (let changes = 1 + random.below(4); changes > 0; changes--) {
    const at = random.below(bytes.length + 1);
    const length = random.below(Math.min(64, bytes.length - at) + 1);
    const [before, middle, after] = [
      bytes.subarray(0, at),
      bytes.subarray(at, at + length),
      bytes.subarray(at + length),
    ];
    switch (random.below(8)) {
      case 0: // drop
        bytes = Buffer.concat([before, after]);
        break;
      case 1: // repeat
        bytes = Buffer.concat([before, middle, middle, after]);
        break;
      case 2: // cut
        bytes = Buffer.from(random.below(2) ? before : after);
        break;
      case 3: {
        // splice
        const other = random.of(corpus);
        const from = random.below(other.length + 1);
        bytes = Buffer.concat([before, other.subarray(from, from + 1 + random.below(64)), after]);
        break;
      }
      case 4: // flip a bit
        if (at < bytes.length) bytes[at] ^= 1 << random.below(8);
        break;
      case 5: // a byte worth trying
        if (at < bytes.length) bytes[at] = random.of(bytesWorthTrying);
        break;
      case 6: // a random byte more
        bytes = Buffer.concat([before, Buffer.of(random.below(256)), middle, after]);
        break;
      default: {
        const piece = text
          ? Buffer.from(random.of(textWorthTrying))
          : Buffer.from(
              Array.from({ length: 1 + random.below(8) }, () => random.of(bytesWorthTrying)),
            );
        bytes = Buffer.concat([before, piece, after]);
      }
    }
    if (bytes.length > 64 * 1024) bytes = bytes.subarray(0, 64 * 1024);
  }
  return bytes;
}
