// js-libp2p 3 calls Promise.withResolvers, which Node has from 22 on. Import this file first.
Promise.withResolvers ??= function () {
  let resolve, reject
  const promise = new this((...both) => { [resolve, reject] = both })
  return { promise, resolve, reject }
}
