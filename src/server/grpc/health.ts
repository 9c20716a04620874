// grpc.health.v1: the server's health, and each model's under its name.
import type { ServerWritableStream, UntypedServiceImplementation } from '@grpc/grpc-js';
import { NotFoundError } from '../../errors.js';
import { grpcStatusFor } from '../../serving/errors.js';
import { CallExchange, handlers } from './call-exchange.js';
import type { ServiceDefinition } from './protos.js';
import type { GrpcServer } from './server.js';

export const HEALTH = 'grpc.health.v1.Health';

type Health = 'SERVING' | 'NOT_SERVING' | 'SERVICE_UNKNOWN';
type Watch = ServerWritableStream<{ service: string }, { status: Health }>;

/** @param services names that stand for the whole server */
export function addHealth(
  server: GrpcServer,
  definition: ServiceDefinition,
  services: readonly string[],
): void {
  const { serving } = server.context;
  const healthOf = (name: string): Health => {
    if (name === '' || name === HEALTH || services.includes(name)) {
      return server.open && serving.ready ? 'SERVING' : 'NOT_SERVING';
    }
    const state = serving.catalog.stateOf(name);
    if (state === 'READY') return 'SERVING';
    return state === 'UNAVAILABLE' ? 'SERVICE_UNKNOWN' : 'NOT_SERVING';
  };
  const watchers = new Set<() => void>();
  const look = (): void => {
    for (const watcher of [...watchers]) watcher();
  };
  const stop = serving.catalog.onChange(look);
  server.onClosing(look);
  server.onClose(stop);

  /** Writes the health now and whenever it changes, until the client or the server ends that. */
  const follow = (call: Watch): Promise<void> =>
    new Promise((resolve) => {
      let last: Health | undefined;
      const watcher = (): void => {
        const status = healthOf(call.request.service);
        if (status !== last) call.write({ status });
        last = status;
        if (!server.open) end();
      };
      const end = (): void => {
        watchers.delete(watcher);
        resolve();
      };
      call.on('cancelled', end);
      watchers.add(watcher);
      watcher();
    });
  const watch = (call: Watch): void => {
    new CallExchange(server, 'health', call)
      .perform(() => follow(call))
      .then(
        () => call.end(),
        (error: unknown) => call.emit('error', grpcStatusFor(error)),
      );
  };
  server.add(definition, {
    ...handlers(server, 'health', {
      Check: ({ service }) => {
        const status = healthOf(String(service));
        if (status !== 'SERVICE_UNKNOWN') return { status };
        throw new NotFoundError(`service "${String(service)}" is not known`);
      },
    }),
    Watch: watch as UntypedServiceImplementation[string],
  });
}
