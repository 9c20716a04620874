// Protocol buffers' text format, without a schema: fields, messages, lists, strings and numbers.
//
// Source: https://protobuf.dev/reference/protobuf/textformat-spec/
import { InvalidInputError } from '../../errors.js';

/** A field's values, in order; a field that stands once has one. */
export interface TextMessage {
  [field: string]: TextValue[];
}
export type TextValue = string | number | boolean | TextMessage;

interface Token {
  kind: 'name' | 'number' | 'string' | 'sign' | 'end';
  text: string;
  line: number;
}

const escapes: Readonly<Record<string, string>> = {
  n: '\n',
  t: '\t',
  r: '\r',
  a: '\x07',
  b: '\b',
  f: '\f',
  v: '\v',
};

function unquote(literal: string): string {
  return literal
    .slice(1, -1)
    .replace(
      /\\(x[0-9a-fA-F]{1,2}|[0-7]{1,3}|u[0-9a-fA-F]{4}|.)/gs,
      (_whole: string, code: string) => {
        if (/^[xu][0-9a-fA-F]/.test(code)) return String.fromCodePoint(parseInt(code.slice(1), 16));
        if (/^[0-7]/.test(code)) return String.fromCodePoint(parseInt(code, 8));
        return escapes[code] ?? code;
      },
    );
}

const pattern =
  /([ \t\r]+|#[^\n]*)|(\n)|([A-Za-z_][A-Za-z0-9_.]*)|(-?(?:0x[0-9a-fA-F]+|(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?)[fF]?|-?inf|-?nan)|("(?:[^"\\\n]|\\[^])*"|'(?:[^'\\\n]|\\[^])*')|([{}<>[\]:;,])/y;

function tokenize(text: string, file: string): Token[] {
  const tokens: Token[] = [];
  let line = 1;
  pattern.lastIndex = 0;
  while (pattern.lastIndex < text.length) {
    const at = pattern.lastIndex;
    const match = pattern.exec(text);
    if (!match) {
      throw new InvalidInputError(`${file}:${line}: unexpected ${JSON.stringify(text[at])}`);
    }
    const [whole, , newline, name, number, string] = match;
    if (newline) line++;
    else if (name) tokens.push({ kind: 'name', text: name, line });
    else if (number) tokens.push({ kind: 'number', text: number, line });
    else if (string) tokens.push({ kind: 'string', text: unquote(string), line });
    else if (match[6]) tokens.push({ kind: 'sign', text: whole, line });
  }
  tokens.push({ kind: 'end', text: 'the end of the file', line });
  return tokens;
}

/** Messages nested deeper than this are no configuration. */
const MAX_DEPTH = 64;

/**
 * Parses a file.
 *
 * @throws InvalidInputError with file and line, and what was expected
 */
export function parseTextFormat(text: string, file: string): TextMessage {
  const tokens = tokenize(text, file);
  let next = 0;
  const peek = (): Token => tokens[next]!;
  const fail = (expected: string): never => {
    const { text: got, line } = peek();
    throw new InvalidInputError(
      `${file}:${line}: expected ${expected}, got ${JSON.stringify(got)}`,
    );
  };
  const take = (sign: string): boolean => {
    if (peek().kind !== 'sign' || peek().text !== sign) return false;
    next++;
    return true;
  };

  function scalar(): TextValue {
    const token = peek();
    if (token.kind === 'string') {
      // Strings side by side are one.
      let joined = '';
      while (peek().kind === 'string') joined += tokens[next++]!.text;
      return joined;
    }
    if (token.kind !== 'name' && token.kind !== 'number') fail('a value');
    next++;
    if (token.kind === 'number') return Number(token.text.replace(/^(?!-?0x)(.*)[fF]$/, '$1'));
    if (token.text === 'true') return true;
    return token.text === 'false' ? false : token.text;
  }

  function value(depth: number): TextValue {
    if (take('{')) return message('}', depth + 1);
    if (take('<')) return message('>', depth + 1);
    return scalar();
  }

  function message(end: string | undefined, depth: number): TextMessage {
    if (depth > MAX_DEPTH) fail(`at most ${MAX_DEPTH} messages inside each other`);
    const fields: TextMessage = Object.create(null) as TextMessage;
    for (;;) {
      if (end === undefined ? peek().kind === 'end' : take(end)) return fields;
      const name = peek();
      if (name.kind !== 'name') fail(end === undefined ? 'a field' : `a field or "${end}"`);
      next++;
      const colon = take(':');
      const values = (fields[name.text] ??= []);
      const opens = peek().kind === 'sign' && ['{', '<', '['].includes(peek().text);
      if (!colon && !opens) fail('":" or a message');
      if (take('[')) {
        while (!take(']')) {
          values.push(value(depth));
          if (!take(',') && !(peek().kind === 'sign' && peek().text === ']')) fail('"," or "]"');
        }
      } else {
        values.push(value(depth));
      }
      if (!take(',')) take(';');
    }
  }
  return message(undefined, 0);
}

/** The same tree from JSON, as clients send configurations: maps become entries of key and value. */
export function fromJson(json: Record<string, unknown>, maps: ReadonlySet<string>): TextMessage {
  const fields: TextMessage = Object.create(null) as TextMessage;
  const convert = (value: unknown): TextValue =>
    typeof value === 'object' && value !== null
      ? fromJson(value as Record<string, unknown>, maps)
      : (value as TextValue);
  for (const [name, value] of Object.entries(json)) {
    if (value === null || value === undefined) continue;
    if (Array.isArray(value)) fields[name] = value.map(convert);
    else if (maps.has(name) && typeof value === 'object') {
      fields[name] = Object.entries(value).map(([key, entry]) => ({
        key: [key],
        value: [convert(entry)],
      }));
    } else fields[name] = [convert(value)];
  }
  return fields;
}
