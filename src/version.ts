import { createRequire } from 'node:module';

/** Tercel's version, from package.json. */
export const version = (createRequire(import.meta.url)('../package.json') as { version: string })
  .version;
