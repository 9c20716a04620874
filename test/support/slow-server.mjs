// A server that takes as long as it is told: node slow-server.mjs KIND. Prints its port.
//
//   constant   50 ms
//   bimodal    25 ms, and each fifth request 100 ms
//   stall      50 ms; at the 200th request it does nothing at all for 500 ms
//   echo       as soon as it can
//
// GET /log says when each request was answered, in the order in which they came, by the monotonic clock in
// milliseconds: timers are late by up to one, a busy machine delays the server too, and then that is the
// truth.
import http from 'node:http';

const kind = process.argv[2];
const nowMs = () => Number(process.hrtime.bigint()) / 1e6;
const answered = [];
let received = 0;

function delayMs() {
  if (kind === 'bimodal') return received % 5 === 0 ? 100 : 25;
  return 50;
}

const server = http.createServer((request, response) => {
  request.resume();
  if (request.url === '/log') {
    response.end(JSON.stringify(answered));
    return;
  }
  // What only warms it up counts for nothing.
  if (kind === 'echo' || request.url === '/warm') {
    response.end('done');
    return;
  }
  const index = received++;
  if (kind === 'stall' && received === 200) {
    for (const until = nowMs() + 500; nowMs() < until;) {
      // nothing
    }
  }
  setTimeout(() => {
    answered[index] = nowMs();
    response.end('done');
  }, delayMs());
});
server.listen(0, '127.0.0.1', () => console.log(server.address().port));
