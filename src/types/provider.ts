/** An execution provider and its options, as ONNX Runtime documents them. */
export interface ProviderSpec {
  /** 'cpu', 'cuda', 'tensorrt', or any name that the library or a plugin knows. */
  name: string;
  options?: Record<string, string | number | boolean>;
  /** The library of a plugin provider, which is registered first; see registerProvider(). */
  library?: string;
  /** Which of the devices that a plugin provider offers, as in providerDevices(). Default 0, its first. */
  device?: number;
}

/** A device as an execution provider offers it. */
export interface ProviderDevice {
  /** The provider's name, for `providers`. */
  provider: string;
  vendor: string;
  type: 'cpu' | 'gpu' | 'npu' | 'other';
  hardwareVendor: string;
  /** By PCI. */
  vendorId: number;
  deviceId: number;
  /** What the provider says of it, such as its version and its library's path. */
  metadata: Record<string, string>;
  /** The provider's options for it, as they are by default. */
  options: Record<string, string>;
}
