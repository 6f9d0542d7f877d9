-- Sends what the file has that is named after "--": with "lines" before its name each line as a
-- JSON body, one after the other. With "whole", a number of files, and these, each file as a body,
-- one after the other, and the headers that follow ("Name: value"). Without arguments, GETs. At the
-- end prints what happened as one line of JSON (times in microseconds).

local requests, sent = {}, 0

function init(args)
  if not args[1] then
    requests[1] = wrk.format()
    return
  end
  wrk.method = "POST"
  if args[1] == "lines" then
    wrk.headers["Content-Type"] = "application/json"
    for body in io.lines(args[2]) do
      requests[#requests + 1] = wrk.format(nil, nil, nil, body)
    end
    return
  end
  local last = 2 + tonumber(args[2])
  for index = last + 1, #args do
    local name, value = args[index]:match("^([^:]+): (.*)$")
    wrk.headers[name] = value
  end
  for index = 3, last do
    local file = assert(io.open(args[index], "rb"))
    requests[#requests + 1] = wrk.format(nil, nil, nil, file:read("*a"))
    file:close()
  end
end

function request()
  sent = sent % #requests + 1
  return requests[sent]
end

function done(summary, latency, _)
  local e = summary.errors
  print(string.format(
    '{"requests":%d,"duration_us":%d,"p50_us":%.0f,"p99_us":%.0f,"connect":%d,"read":%d,' ..
    '"write":%d,"timeout":%d,"status":%d}',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
    e.connect, e.read, e.write, e.timeout, e.status))
end
