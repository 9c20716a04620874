// An idle echo: answers each request with the bytes that came with it, and does nothing else.
//
//   node echo.mjs   prints its port
import { createServer } from 'node:net';

const END = Buffer.from('\r\n\r\n');

const server = createServer({ noDelay: true }, (socket) => {
  let kept = Buffer.alloc(0);
  socket.on('error', () => socket.destroy());
  socket.on('data', (chunk) => {
    kept = kept.length > 0 ? Buffer.concat([kept, chunk]) : chunk;
    for (;;) {
      const end = kept.indexOf(END);
      if (end < 0) return;
      const head = kept.toString('latin1', 0, end);
      const length = Number(/\r\ncontent-length: (\d+)/i.exec(head)?.[1] ?? 0);
      const whole = end + END.length + length;
      if (kept.length < whole) return;
      const status = `HTTP/1.1 200 OK\r\ncontent-length: ${length}\r\n\r\n`;
      socket.write(Buffer.concat([Buffer.from(status), kept.subarray(end + END.length, whole)]));
      kept = kept.subarray(whole);
    }
  });
});
server.listen(0, '127.0.0.1', () => console.log(server.address().port));
