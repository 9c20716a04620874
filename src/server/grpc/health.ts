// grpc.health.v1: the server's health, and each model's under its name.
import type { ServerWritableStream, UntypedServiceImplementation } from '@grpc/grpc-js';
import type { Serving } from '../../serving/serving.js';
import { HttpError } from '../../serving/errors.js';
import { handlers, type GrpcServer } from './server.js';
import type { ServiceDefinition } from './protos.js';

export const HEALTH = 'grpc.health.v1.Health';

/** How often a watched health is looked at. */
const WATCH_MS = 500;

type Health = 'SERVING' | 'NOT_SERVING' | 'SERVICE_UNKNOWN';
type Watch = ServerWritableStream<{ service: string }, { status: Health }>;

/** @param services names that stand for the whole server */
export function addHealth(
  server: GrpcServer,
  definition: ServiceDefinition,
  serving: Serving,
  services: readonly string[],
): void {
  const healthOf = (name: string): Health => {
    if (name === '' || name === HEALTH || services.includes(name)) {
      return server.open && serving.ready ? 'SERVING' : 'NOT_SERVING';
    }
    return serving.catalog.find(name) ? 'SERVING' : 'SERVICE_UNKNOWN';
  };
  const watch = (call: Watch): void => {
    let last: Health | undefined;
    const stop = (): void => {
      clearInterval(timer);
      call.end();
    };
    const look = (): void => {
      const status = healthOf(call.request.service);
      if (status !== last) call.write({ status });
      last = status;
      if (!server.open) stop();
    };
    const timer = setInterval(look, WATCH_MS);
    call.on('cancelled', stop);
    look();
  };
  server.add(definition, {
    ...handlers({
      Check: ({ service }) => {
        const status = healthOf(String(service));
        if (status !== 'SERVICE_UNKNOWN') return { status };
        throw new HttpError(404, `service "${String(service)}" is not known`);
      },
    }),
    Watch: watch as UntypedServiceImplementation[string],
  });
}
