// Answers as HTTP has them: the one place that says which headers an answer has.
import { STATUS_CODES } from 'node:http';
import type { PlannedResponse } from '../../protocol/v2/plan.js';
import { answerFor } from '../../serving/errors.js';
import { HEADER_LENGTH } from './request-head.js';

export const JSON_TYPE = 'application/json; charset=utf-8';
export const EVENTS_TYPE = 'text/event-stream; charset=utf-8';

/** Longer answers go to the socket piece by piece instead of being joined first. */
export const JOIN_UP_TO_BYTES = 64 * 1024;

/** An answer that is not written yet. */
export interface HttpAnswer {
  readonly status: number;
  /** Of the content. */
  readonly type: string;
  /** Bytes of the JSON part, where tensors come after it. */
  readonly jsonBytes: number | undefined;
  /** Seconds, where trying again may help. */
  readonly retryAfter: number | undefined;
  readonly parts: readonly Uint8Array[];
  /** Of all parts together. */
  readonly bytes: number;
  /** Headers of interceptors, name and value in turns. */
  readonly more: readonly string[] | undefined;
}

/** What an inference answers. */
export function inferAnswer(
  { head, binary }: PlannedResponse,
  more: readonly string[] | undefined,
): HttpAnswer {
  let bytes = head.length;
  for (let i = 0; i < binary.length; i++) bytes += binary[i]!.length;
  const hasTensors = binary.length > 0;
  return {
    status: 200,
    type: hasTensors ? 'application/octet-stream' : JSON_TYPE,
    jsonBytes: hasTensors ? head.length : undefined,
    retryAfter: undefined,
    parts: hasTensors ? [head, ...binary] : [head],
    bytes,
    more,
  };
}

/** What an error answers. */
export function errorAnswer(error: unknown, more: readonly string[] | undefined): HttpAnswer {
  const { status, message, retryAfter } = answerFor(error);
  const body = Buffer.from(JSON.stringify({ error: message }));
  const { length: bytes } = body;
  return { status, type: JSON_TYPE, jsonBytes: undefined, retryAfter, parts: [body], bytes, more };
}

/** An answer's headers, name and value in turns. */
export function headersOf({ type, jsonBytes, bytes, retryAfter, more }: HttpAnswer): string[] {
  const headers = ['content-type', type];
  if (jsonBytes !== undefined) headers.push(HEADER_LENGTH, String(jsonBytes));
  headers.push('content-length', String(bytes));
  if (retryAfter !== undefined) headers.push('retry-after', String(retryAfter));
  if (more) headers.push(...more);
  return headers;
}

/** The head that was written last: answers of a model differ in their tensors, and by the second. */
let lastHead: {
  type: string;
  jsonBytes: number | undefined;
  bytes: number;
  end: string;
  head: Buffer;
} = {
  type: '',
  jsonBytes: undefined,
  bytes: -1,
  end: '',
  head: Buffer.alloc(0),
};

/** An answer's head in bytes. `end`: the headers that are the connection's, and the empty line. */
export function headOf(answer: HttpAnswer, end: string): Buffer {
  const { status, type, jsonBytes, bytes, more } = answer;
  const isUsual = status === 200 && more === undefined;
  if (
    isUsual &&
    lastHead.bytes === bytes &&
    lastHead.jsonBytes === jsonBytes &&
    lastHead.end === end &&
    lastHead.type === type
  ) {
    return lastHead.head;
  }
  const reason = STATUS_CODES[status] ?? (status === 499 ? 'Client Closed Request' : 'Unknown');
  let text = `HTTP/1.1 ${status} ${reason}\r\n`;
  const headers = headersOf(answer);
  for (let i = 0; i < headers.length; i += 2) text += `${headers[i]}: ${headers[i + 1]}\r\n`;
  const head = Buffer.from(text + end, 'latin1');
  if (isUsual) lastHead = { type, jsonBytes, bytes, end, head };
  return head;
}
