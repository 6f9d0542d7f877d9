-- Sends what the files have that are named after "--": with "lines", a number and a file each line
-- as a JSON body, so many at once on a connection; with "whole" and files each file as a body, one
-- after the other. Without arguments, GETs. At the end prints what happened as one line of JSON
-- (times in microseconds).

local requests, sent, together = {}, 0, 1

function init(args)
  if not args[1] then
    requests[1] = wrk.format()
    return
  end
  wrk.method = "POST"
  if args[1] == "lines" then
    wrk.headers["Content-Type"] = "application/json"
    together = tonumber(args[2])
    for body in io.lines(args[3]) do
      requests[#requests + 1] = wrk.format(nil, nil, nil, body)
    end
    return
  end
  for index = 2, #args do
    local file = assert(io.open(args[index], "rb"))
    requests[#requests + 1] = wrk.format(nil, nil, nil, file:read("*a"))
    file:close()
  end
end

local function following()
  sent = sent % #requests + 1
  return requests[sent]
end

function request()
  if together == 1 then
    return following()
  end
  local several = {}
  for index = 1, together do
    several[index] = following()
  end
  return table.concat(several)
end

function done(summary, latency, _)
  local e = summary.errors
  print(string.format(
    '{"requests":%d,"duration_us":%d,"p50_us":%.0f,"p99_us":%.0f,"connect":%d,"read":%d,' ..
    '"write":%d,"timeout":%d,"status":%d}',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
    e.connect, e.read, e.write, e.timeout, e.status))
end
