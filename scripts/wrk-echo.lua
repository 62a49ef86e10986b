-- Makes wrk a load generator for an echo server. wrk counts HTTP answers; what it sends here is the
-- text of an answer, so that what comes back echoed is a good one. wrk takes a first request from
-- its first thread, never sends it, and refuses to start unless that is a real HTTP request.

local message = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
local threads = 0

function setup(thread)
    thread:set("must_look_like_http", threads == 0)
    threads = threads + 1
end

function request()
    if must_look_like_http then
        must_look_like_http = false
        return "GET / HTTP/1.1\r\nHost: echo\r\n\r\n"
    end
    return message
end
