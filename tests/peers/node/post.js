// POST a file's content with the npm package coap: node post.js coap://127.0.0.1:7302/readings con|non 110 FILE
// Prints the answer's code and its payload.
'use strict'
const coap = require('coap')
const { readFileSync } = require('fs')

const [uri, type, format, file] = process.argv.slice(2)
const { hostname, port, pathname, search } = new URL(uri)
const request = coap.request({
  hostname, port, pathname, query: search.slice(1), method: 'POST', confirmable: type === 'con'
})
request.setOption('Content-Format', Buffer.from([Number(format)]))
request.setOption('Block1', Buffer.of(6)) // in blocks of 1,024 bytes, if it is larger
request.on('response', (response) => {
  console.log(response.code, response.payload.toString())
  process.exit(0)
})
request.on('error', (error) => {
  console.error(error)
  process.exit(1)
})
request.end(readFileSync(file))
