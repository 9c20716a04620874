// The head of an infer request, read strictly (RFC 9112): what is not plainly one is not taken.
//
// Node's own parser is there for the rest, so nothing here has to be lenient: no folded lines, no bare
// line feeds, no repeated lengths, no codings. Two parsers that disagree about where a request ends are
// how requests are smuggled; this one only ever takes requests about which there is nothing to disagree.

/** Names the length of the JSON part in front of the tensors. */
export const HEADER_LENGTH = 'inference-header-content-length';

export interface RequestHead {
  /** The path with the query, as it came. */
  readonly url: string;
  /** Bytes of the JSON part, at least 1: all of the body, where the head does not say. */
  readonly jsonBytes: number;
  /** Bytes of the body, no fewer. */
  readonly bytes: number;
  /** Whether the client wants to go on with this connection. */
  readonly keepAlive: boolean;
  /** Where the values of the headers that are asked for lie in the text, in its order. */
  readonly spans: readonly HeaderSpan[];
}

/** Headers that say where a request ends, and whose it is: with another value it is another request. */
const FRAMING = new Set(['connection', 'content-length', 'host', HEADER_LENGTH]);

/** The value of a header. */
export interface HeaderSpan {
  /** Whether it has to be the same in a request that is read by this one. */
  readonly fixed: boolean;
  /** Of the header, among those that are asked for. */
  readonly index: number;
  readonly begin: number;
  readonly end: number;
}

const requestLine = /^POST (\/[\x21-\x7e]*) HTTP\/1\.1$/;
// Spaces around the value are cut off afterwards: three parts that all match a space take cubic time.
const headerLine = /^([!#$%&'*+\-.^_`|~0-9A-Za-z]+):([\t\x20-\x7e]*)$/;
const digits = /^[0-9]{1,15}$/;

/** Headers that want something of the server, or of the answer, that only Fastify's path gives. */
const NOT_HERE = new Set([
  'accept-encoding',
  'content-encoding',
  'expect',
  'te',
  'trailer',
  'transfer-encoding',
  'upgrade',
]);

/**
 * Reads a head, without the empty line after it. Undefined where it is anything but a whole and plain
 * POST with a length.
 *
 * @param asked headers in lower case; one that is there twice is for Node to join
 */
export function readRequestHead(
  text: string,
  asked: readonly string[] = [],
): RequestHead | undefined {
  const lines = text.split('\r\n');
  const url = requestLine.exec(lines[0]!)?.[1];
  if (url === undefined) return undefined;
  let host = false;
  let keepAlive: boolean | undefined;
  let bytes: number | undefined;
  let jsonBytes: number | undefined;
  const spans: HeaderSpan[] = [];
  let at = lines[0]!.length + 2;
  for (let i = 1; i < lines.length; i++) {
    const match = headerLine.exec(lines[i]!);
    if (!match) return undefined;
    const name = match[1]!.toLowerCase();
    const index = asked.indexOf(name);
    if (index >= 0) {
      if (spans.some((span) => span.index === index)) return undefined;
      const text = match[2]!;
      // Without the space that everybody writes: it is the same each time.
      const begin = at + match[1]!.length + 1 + (text.length - text.trimStart().length);
      spans.push({ fixed: FRAMING.has(name), index, begin, end: at + lines[i]!.length });
    }
    at += lines[i]!.length + 2;
    const value = match[2]!.trim();
    if (NOT_HERE.has(name)) return undefined;
    switch (name) {
      case 'host':
        if (host || value === '') return undefined;
        host = true;
        break;
      case 'connection': {
        const asked = value.toLowerCase();
        if (keepAlive !== undefined || (asked !== 'keep-alive' && asked !== 'close'))
          return undefined;
        keepAlive = asked === 'keep-alive';
        break;
      }
      case 'content-length':
        if (bytes !== undefined || !digits.test(value)) return undefined;
        bytes = Number(value);
        break;
      case HEADER_LENGTH:
        if (jsonBytes !== undefined || !digits.test(value)) return undefined;
        jsonBytes = Number(value);
        break;
      default:
    }
  }
  if (!host || bytes === undefined) return undefined;
  jsonBytes ??= bytes;
  if (jsonBytes === 0 || jsonBytes > bytes) return undefined;
  return { url, jsonBytes, bytes, keepAlive: keepAlive ?? true, spans };
}
