// The reports in headless Chromium, which has to be installed: npm run browser
//
// No message on the console, no request, in light and in dark; heads sort their tables, and what is under
// the pointer is told. Screenshots are left in build/browser/ to be looked at.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { chromium } from 'playwright-core';

const root = fileURLToPath(new URL('../..', import.meta.url));
const folder = path.join(root, 'build/browser');
const program = path.join(root, 'dist/cli/main.js');
const model = (name) => path.join(root, `models/bench/${name}/1/model.onnx`);
const tercel = (...args) =>
  execFileSync(process.execPath, [program, ...args], {
    cwd: folder,
    stdio: ['ignore', 'ignore', 'inherit'],
  });

const executablePath =
  process.env.CHROMIUM ??
  ['/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome'].find(existsSync);
if (!executablePath) {
  console.error('no Chromium: install one (apt-get install chromium), or name it with CHROMIUM');
  process.exit(1);
}

mkdirSync(folder, { recursive: true });
tercel(
  'bench',
  model('mlp'),
  '--batch',
  '1,8',
  '--concurrency',
  '1,16',
  '--duration',
  '100ms',
  '--rounds',
  '3',
  '--quiet',
  '-o',
  'bench.json',
);
tercel('bench', 'report', 'bench.json', '-o', 'bench.html');
tercel(
  'profile',
  model('resnet'),
  '--runs',
  '10',
  '--cycles',
  '3',
  '--quiet',
  '--html',
  'profile.html',
);

const browser = await chromium.launch({ executablePath, args: ['--no-sandbox'] });
let checks = 0;

async function check(name, colorScheme, drive) {
  const tab = await browser.newPage({ colorScheme, viewport: { width: 1200, height: 1000 } });
  const noise = [];
  tab.on('console', (message) => noise.push(message.text()));
  tab.on('pageerror', (error) => noise.push(String(error)));
  tab.on('request', (request) => {
    if (!/^(file|data):/.test(request.url())) noise.push(request.url());
  });
  await tab.goto(pathToFileURL(path.join(folder, `${name}.html`)).href);
  await drive(tab);
  await tab.screenshot({ path: path.join(folder, `${name}-${colorScheme}.png`), fullPage: true });
  assert.deepEqual(noise, []);
  // Text and ground differ enough to be read (WCAG 2: 4.5 to 1).
  const contrast = await tab.evaluate(() => {
    const style = globalThis.getComputedStyle(globalThis.document.body);
    const luminance = (text) => {
      const [r, g, b] = text.match(/\d+/g).map((v) => {
        const c = v / 255;
        return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
      });
      return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const [a, b] = [luminance(style.color), luminance(style.backgroundColor)].sort((x, y) => y - x);
    return (a + 0.05) / (b + 0.05);
  });
  assert.ok(contrast > 4.5, `${name}, ${colorScheme}: contrast ${contrast}`);
  await tab.close();
  checks++;
  console.log(`  ok   ${name}, ${colorScheme}`);
}

const cells = (tab, column) =>
  tab.$$eval(
    'table[data-sort]',
    (tables, at) =>
      [...tables[0].tBodies[0].rows].map((row) => Number(row.cells[at].dataset.value)),
    column,
  );

/** A click sorts up, another down. */
async function sorts(tab, column) {
  const head = tab.locator('table[data-sort]').first().locator('th').nth(column).locator('button');
  await head.click();
  const up = await cells(tab, column);
  assert.ok(up.length > 2 && up.every((value) => !Number.isNaN(value)));
  assert.deepEqual(
    up,
    [...up].sort((a, b) => a - b),
  );
  await head.click();
  assert.deepEqual(await cells(tab, column), [...up].reverse());
}

/** What is under the pointer is shown beside it, and no longer when it leaves. */
async function tells(tab, selector, pattern) {
  await tab.locator(selector).first().scrollIntoViewIfNeeded();
  await tab.locator(selector).first().hover({ force: true });
  const tip = tab.locator('#tip');
  assert.ok(await tip.isVisible());
  assert.match(await tip.textContent(), pattern);
  await tab.mouse.move(2, 2);
  assert.ok(!(await tip.isVisible()));
}

for (const scheme of ['light', 'dark']) {
  await check('bench', scheme, async (tab) => {
    await sorts(tab, 1);
    await tells(tab, 'svg circle[data-tip]', /p50: [\d.]+ ms/);
    await tells(tab, 'svg g[data-tip]', /inferences\/s, p99/);
  });
  await check('profile', scheme, async (tab) => {
    await sorts(tab, 2);
    await tells(tab, 'svg g[data-tip]', /a run\s+[\d.]+ us/);
    await tells(tab, 'svg rect[data-tip$="alive"]', /ms\s+.* alive/);
  });
}
await browser.close();
console.log(`${checks} passed, 0 failed`);
