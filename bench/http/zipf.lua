-- zipf.lua FILE SIZE SEED: wrk asks for /page/SIZE/N, N drawn before from FILE, one number a line; each run begins
-- elsewhere in it. Prints one line: requests, seconds, p50 and p99 in us, errors that are not an answer of 200, bytes.
local requests, at = {}, 0

function init(arguments)
    for number in io.lines(arguments[1]) do
        requests[#requests + 1] = wrk.format("GET", "/page/" .. arguments[2] .. "/" .. number)
    end
    at = (tonumber(arguments[3]) * 7919) % #requests
end

function request()
    at = at % #requests + 1
    return requests[at]
end

function done(summary, latency)
    local errors = summary.errors
    io.write(string.format("zipf %d %.6f %d %d %d %d\n", summary.requests, summary.duration / 1e6, latency:percentile(50),
        latency:percentile(99), errors.connect + errors.read + errors.write + errors.timeout + errors.status, summary.bytes))
end
