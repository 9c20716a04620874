export function benchHtml(_: unknown): string {
  return '';
}
