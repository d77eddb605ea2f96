/** Arrays of a bundle: numpy's dtypes as JavaScript holds them. A float16 stays in its 16 bits until it is compared. */

const HOLDERS = {
  float64: Float64Array, float32: Float32Array, float16: Uint16Array,
  int64: BigInt64Array, int32: Int32Array, int16: Int16Array, int8: Int8Array,
  uint64: BigUint64Array, uint32: Uint32Array, uint16: Uint16Array, uint8: Uint8Array, bool: Uint8Array,
};

/**
 * An array out of the bytes of a golden file.
 * @param {{dtype: string, shape: number[], offset: number}} entry as bundle.json has it
 * @param {ArrayBuffer} bytes the whole file
 */
export function read({dtype, shape, offset}, bytes) {
  return {dtype, shape, data: hold(dtype, bytes, offset, shape.reduce((a, b) => a * b, 1))};
}

/** Bytes as numbers of that dtype. Browsers run on little-endian machines alone, as the files are. */
export function hold(dtype, bytes, offset, length) {
  const holder = HOLDERS[dtype];
  if (!holder) throw new Error(`This page knows no numbers of the kind ${dtype}.`);
  return new holder(bytes, offset, length);
}

/** The bytes of a typed array, without a copy. */
export const bytesOf = (data) => new Uint8Array(data.buffer, data.byteOffset, data.byteLength);

/** The number that an element stands for; whole numbers beyond 2**53 lose digits, and are compared before that. */
export const number = (dtype, element) => (dtype === "float16" ? half(element) : Number(element));

function half(bits) {
  const sign = bits & 0x8000 ? -1 : 1, exponent = (bits >> 10) & 31, fraction = bits & 1023;
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  return sign * (exponent ? 2 ** (exponent - 25) * (1024 + fraction) : 2 ** -24 * fraction);
}
