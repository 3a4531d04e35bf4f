// Commands about the connection itself and about the other connections: PING, HELLO, AUTH, SELECT,
// RESET, QUIT and CLIENT. https://redis.io/commands/?group=connection

#include "src/server/client_commands.h"

#include <algorithm>
#include <functional>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "src/commands/errors.h"
#include "src/commands/help.h"
#include "src/server/server.h"
#include "utils/number.h"
#include "utils/version.h"

namespace crab {

namespace {

constexpr char kWrongPassword[] = "WRONGPASS invalid username-password pair or user is disabled.";
constexpr char kNoPasswordSet[] =
    "ERR AUTH <password> called without any password configured for the default user. Are you sure "
    "your configuration is correct?";
constexpr char kHelloNeedsAuth[] =
    "NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO "
    "<proto> "
    "AUTH <user> <pass> option can be used to authenticate the client and select the RESP protocol "
    "version at the same time";
constexpr char kBadName[] =
    "ERR Client names cannot contain spaces, newlines or special characters.";

Server& ServerOf(Call& call) { return call.client.session->server(); }

// Compares without telling by its time how much of the secret was right.
bool SecretEquals(std::string_view given, std::string_view secret) {
  unsigned difference = given.size() == secret.size() ? 0 : 1;
  for (size_t i = 0; i < given.size(); ++i) {
    difference |= static_cast<unsigned char>(given[i]) ^
                  static_cast<unsigned char>(secret.empty() ? 0 : secret[i % secret.size()]);
  }
  return difference == 0;
}

Status Authenticate(Call& call, std::string_view user, std::string_view password) {
  Status status = CheckPassword(ServerOf(call).config().requirepass, {user, password});
  if (!status.ok()) {
    ++call.client.session->loop().stats().auth_denied;
    return status;
  }
  call.client.authenticated = true;
  call.client.user = "default";
  return Status::Ok();
}

std::string Lower(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(), ::tolower);
  return text;
}

// Names are shown in lines of fields: nothing below '!' and nothing above '~'.
bool IsPrintableName(std::string_view name) {
  return std::all_of(name.begin(), name.end(), [](char c) { return c >= '!' && c <= '~'; });
}

// PING [message]
Status Ping(Call& call) {
  if (call.args.size() > 2) return WrongArity(call.command);
  if (call.args.size() == 2) {
    call.reply.Bulk(call.args[1]);
  } else {
    call.reply.Simple("PONG");
  }
  return Status::Ok();
}

// ECHO message
Status Echo(Call& call) {
  call.reply.Bulk(call.args[1]);
  return Status::Ok();
}

// QUIT
Status Quit(Call& call) {
  call.reply.Ok();
  call.client.close_after_reply = true;
  return Status::Ok();
}

// SELECT index
Status Select(Call& call) {
  const int64_t db = TRY(call.args.Integer(
      1, INT32_MIN, INT32_MAX,
      "ERR value is out of range, value must between -2147483648 and 2147483647"));
  if (db < 0 || db >= call.keyspace.keyspace().options().databases) {
    return Status::Error("ERR DB index is out of range");
  }
  call.client.db = static_cast<uint32_t>(db);
  call.reply.Ok();
  return Status::Ok();
}

// AUTH [username] password
Status Auth(Call& call) {
  const Credentials given = TRY(AuthArguments(ServerOf(call).config().requirepass, call.args));
  TRY(Authenticate(call, given.user, given.password));
  call.reply.Ok();
  return Status::Ok();
}

// HELLO [protover [AUTH username password] [SETNAME clientname]]
Status Hello(Call& call) {
  int64_t protocol = call.client.protocol;
  if (call.args.size() > 1) {
    if (!ParseInt64(call.args[1], &protocol)) {
      return Status::Error("ERR Protocol version is not an integer or out of range");
    }
    if (protocol < 2 || protocol > 3) {
      return Status::Error("NOPROTO unsupported protocol version");
    }
  }
  std::optional<std::string_view> user, password, name;
  for (size_t i = 2; i < call.args.size(); ++i) {
    const size_t left = call.args.size() - 1 - i;
    if (call.args.Is(i, "AUTH") && left >= 2) {
      user = call.args[i + 1];
      password = call.args[i + 2];
      i += 2;
    } else if (call.args.Is(i, "SETNAME") && left >= 1) {
      name = call.args[i + 1];
      if (!IsPrintableName(*name)) return Status::Error(kBadName);
      i += 1;
    } else {
      return Status::Error("ERR Syntax error in HELLO option '" + std::string(call.args[i]) + "'");
    }
  }
  if (user) TRY(Authenticate(call, *user, *password));
  if (!call.client.authenticated) return Status::Error(kHelloNeedsAuth);
  if (name) call.client.name = *name;

  call.client.protocol = static_cast<int>(protocol);
  call.reply.set_protocol(call.client.protocol);
  call.reply.Map(7);
  call.reply.Bulk("server");
  call.reply.Bulk("redis");
  call.reply.Bulk("version");
  call.reply.Bulk(kRedisVersion);
  call.reply.Bulk("proto");
  call.reply.Integer(protocol);
  call.reply.Bulk("id");
  call.reply.Integer(static_cast<int64_t>(call.client.id));
  call.reply.Bulk("mode");
  call.reply.Bulk("standalone");
  call.reply.Bulk("role");
  call.reply.Bulk("master");
  call.reply.Bulk("modules");
  call.reply.Array(0);
  return Status::Ok();
}

// What was said so far leaves under the durability that it was said under.
void SetDurability(Call& call, Durability durability) {
  if (durability == call.client.durability) return;
  if (call.client.gate != 0) call.client.session->MarkOutput();
  call.client.durability = durability;
}

// RESET
Status Reset(Call& call) {
  Client& client = call.client;
  client.db = 0;
  client.protocol = 2;
  client.authenticated = ServerOf(call).config().requirepass.empty();
  client.user = "default";
  client.name.clear();
  client.no_touch = false;
  client.no_evict = false;
  client.reply_mode = ReplyMode::kOn;
  SetDurability(call, Durability::kDefault);
  call.reply.set_protocol(2);
  call.reply.Simple("RESET");
  return Status::Ok();
}

// --- CLIENT ---

// CLIENT ID
Status ClientId(Call& call) {
  call.reply.Integer(static_cast<int64_t>(call.client.id));
  return Status::Ok();
}

// CLIENT GETNAME
Status ClientGetName(Call& call) {
  if (call.client.name.empty()) {
    call.reply.Null();
  } else {
    call.reply.Bulk(call.client.name);
  }
  return Status::Ok();
}

// CLIENT SETNAME connection-name
Status ClientSetName(Call& call) {
  if (!IsPrintableName(call.args[2])) return Status::Error(kBadName);
  call.client.name = call.args[2];
  call.reply.Ok();
  return Status::Ok();
}

// CLIENT SETINFO LIB-NAME libname | LIB-VER libver
Status ClientSetInfo(Call& call) {
  std::string* field = nullptr;
  std::string attribute(call.args[2]);
  if (call.args.Is(2, "lib-name")) {
    field = &call.client.library_name;
  } else if (call.args.Is(2, "lib-ver")) {
    field = &call.client.library_version;
  } else {
    return Status::Error("ERR Unrecognized option '" + attribute + "'");
  }
  if (!IsPrintableName(call.args[3])) {
    return Status::Error("ERR " + Lower(attribute) +
                         " cannot contain spaces, newlines or special characters.");
  }
  *field = call.args[3];
  call.reply.Ok();
  return Status::Ok();
}

}  // namespace

Result<Credentials> AuthArguments(std::string_view secret, const Args& args) {
  if (args.size() > 3) return Status::Error(kSyntaxError);
  if (args.size() == 3) return Credentials{args[1], args[2]};
  if (secret.empty()) return Status::Error(kNoPasswordSet);
  return Credentials{"default", args[1]};
}

Status CheckPassword(std::string_view secret, const Credentials& given) {
  // A default user without password takes any, as in Redis.
  const bool suits = secret.empty() || SecretEquals(given.password, secret);
  return given.user == "default" && suits ? Status::Ok() : Status::Error(kWrongPassword);
}

std::string ClientInfoLine(const Session& session, int64_t now_ms, uint64_t own_id) {
  const Client& client = session.client();
  std::string flags;
  if (client.close_after_reply) flags += 'c';
  if (session.options().unix_socket) flags += 'U';
  if (client.no_evict) flags += 'e';
  if (client.no_touch) flags += 'T';
  if (flags.empty()) flags = "N";
  std::string line;
  const auto field = [&line](std::string_view name, const auto& value) {
    if (!line.empty()) line += ' ';
    line.append(name).append("=");
    if constexpr (std::is_convertible_v<decltype(value), std::string_view>) {
      line.append(std::string_view(value));
    } else {
      line.append(std::to_string(value));
    }
  };
  const size_t output_bytes = session.output_bytes();
  field("id", client.id);
  field("addr", session.options().peer_address);
  field("laddr", session.options().local_address);
  field("fd", session.options().fd);
  field("name", client.name);
  field("age", std::max<int64_t>(0, (now_ms - session.created_ms) / 1000));
  field("idle", std::max<int64_t>(0, (now_ms - session.last_active_ms) / 1000));
  field("flags", flags);
  field("db", client.db);
  field("sub", 0);
  field("psub", 0);
  field("ssub", 0);
  field("multi", -1);
  field("watch", 0);
  // The request that asks is itself in the input buffer of its connection, as in Redis.
  field("qbuf", session.input_bytes() + (client.id == own_id ? session.request_bytes() : 0));
  field("qbuf-free", session.input_capacity() - session.input_bytes());
  field("argv-mem", client.id == own_id ? session.request_bytes() : 0);
  field("multi-mem", 0);
  field("rbs", session.output_capacity());
  field("rbp", output_bytes);
  field("obl", output_bytes);
  field("oll", 0);
  field("omem", session.in_flight_bytes);
  field("tot-mem", session.MemoryBytes());
  field("events", session.in_flight_bytes > 0 ? "rw" : "r");
  field("cmd", client.last_command == nullptr ? "NULL" : client.last_command->name);
  field("user", client.authenticated ? client.user : "(superuser)");
  field("redir", -1);
  field("resp", client.protocol);
  field("lib-name", client.library_name);
  field("lib-ver", client.library_version);
  return line;
}

namespace {

enum class ClientType { kNormal, kMaster, kReplica, kPubsub };

Result<ClientType> ParseType(std::string_view name) {
  for (const auto& [text, type] :
       {std::pair<const char*, ClientType>{"normal", ClientType::kNormal},
        {"master", ClientType::kMaster},
        {"replica", ClientType::kReplica},
        {"slave", ClientType::kReplica},
        {"pubsub", ClientType::kPubsub}}) {
    if (EqualsIgnoreCase(name, text)) return type;
  }
  return Status::Error("ERR Unknown client type '" + std::string(name) + "'");
}

// All sessions in the order of their ids. The caller holds the world.
std::vector<Session*> Sessions(Server& server) {
  std::vector<Session*> sessions;
  for (const auto& loop : server.loops()) {
    for (const auto& [id, connection] : loop->connections()) {
      if (!connection->session().killed) sessions.push_back(&connection->session());
    }
  }
  std::sort(sessions.begin(), sessions.end(),
            [](Session* a, Session* b) { return a->client().id < b->client().id; });
  return sessions;
}

void ReplyLines(Call& call, const std::vector<Session*>& sessions) {
  std::string text;
  for (Session* session : sessions) {
    text += ClientInfoLine(*session, call.now_ms, call.client.id) + "\n";
  }
  call.reply.Verbatim("txt", text);
}

// CLIENT INFO
Status ClientInfo(Call& call) {
  ReplyLines(call, {call.client.session});
  return Status::Ok();
}

// CLIENT LIST [TYPE normal|master|replica|pubsub | ID client-id ...]
Status ClientList(Call& call) {
  std::vector<Session*> sessions = Sessions(ServerOf(call));
  if (call.args.size() == 4 && call.args.Is(2, "TYPE")) {
    if (TRY(ParseType(call.args[3])) != ClientType::kNormal) sessions.clear();
  } else if (call.args.size() > 3 && call.args.Is(2, "ID")) {
    std::vector<Session*> chosen;
    for (size_t i = 3; i < call.args.size(); ++i) {
      int64_t id = 0;
      if (!ParseInt64(call.args[i], &id)) return Status::Error("ERR Invalid client ID");
      for (Session* session : sessions) {
        if (session->client().id == static_cast<uint64_t>(id)) chosen.push_back(session);
      }
    }
    sessions = std::move(chosen);
  } else if (call.args.size() != 2) {
    return Status::Error(kSyntaxError);
  }
  ReplyLines(call, sessions);
  return Status::Ok();
}

// Marks a session as killed; CloseKilled is to follow. Its own client gets its reply first.
void Kill(Call& call, Session* session) {
  if (session == call.client.session) {
    call.client.close_after_reply = true;
  } else {
    session->killed = true;
  }
}

// Tells the loops of what was killed: once, for each looks at all of its connections.
void CloseKilled(Server& server) {
  for (const auto& loop : server.loops()) {
    loop->Post([](Loop& posted) { posted.CloseKilled(); });
  }
}

// CLIENT KILL addr | option value [option value ...]
// The old form kills the one client at an address or is an error; the new one kills all that suit
// every filter and counts them.
Status ClientKill(Call& call) {
  const Args& args = call.args;
  Server& server = ServerOf(call);
  if (args.size() == 3) {
    for (Session* session : Sessions(server)) {
      if (session->options().peer_address == args[2]) {
        Kill(call, session);
        CloseKilled(server);
        call.reply.Ok();
        return Status::Ok();
      }
    }
    return Status::Error("ERR No such client");
  }
  std::optional<uint64_t> id;
  std::optional<ClientType> type;
  std::optional<std::string_view> address, local_address, user;
  std::optional<int64_t> max_age_s;
  bool skip_me = true;
  for (size_t i = 2; i < args.size(); i += 2) {
    if (i + 1 == args.size()) return Status::Error(kSyntaxError);
    const std::string_view value = args[i + 1];
    if (args.Is(i, "ID")) {
      int64_t number = 0;
      if (!ParseInt64(value, &number) || number <= 0) {
        return Status::Error("ERR client-id should be greater than 0");
      }
      id = static_cast<uint64_t>(number);
    } else if (args.Is(i, "TYPE")) {
      type = TRY(ParseType(value));
    } else if (args.Is(i, "ADDR")) {
      address = value;
    } else if (args.Is(i, "LADDR")) {
      local_address = value;
    } else if (args.Is(i, "USER")) {
      if (value != "default") {
        return Status::Error("ERR No such user '" + std::string(value) + "'");
      }
      user = value;
    } else if (args.Is(i, "MAXAGE")) {
      int64_t age = 0;
      if (!ParseInt64(value, &age)) {
        return Status::Error("ERR maxage is not an integer or out of range");
      }
      if (age <= 0) return Status::Error("ERR maxage should be greater than 0");
      max_age_s = age;
    } else if (args.Is(i, "SKIPME")) {
      if (EqualsIgnoreCase(value, "yes")) {
        skip_me = true;
      } else if (EqualsIgnoreCase(value, "no")) {
        skip_me = false;
      } else {
        return Status::Error(kSyntaxError);
      }
    } else {
      return Status::Error(kSyntaxError);
    }
  }
  int64_t killed = 0;
  for (Session* session : Sessions(server)) {
    const Client& client = session->client();
    if (id && client.id != *id) continue;
    if (type && *type != ClientType::kNormal) continue;
    if (address && session->options().peer_address != *address) continue;
    if (local_address && session->options().local_address != *local_address) continue;
    if (user && (client.user != *user || !client.authenticated)) continue;
    if (max_age_s && (call.now_ms - session->created_ms) / 1000 < *max_age_s) continue;
    if (skip_me && session == call.client.session) continue;
    Kill(call, session);
    ++killed;
  }
  if (killed > 0) CloseKilled(server);
  call.reply.Integer(killed);
  return Status::Ok();
}

// CLIENT REPLY ON|OFF|SKIP
Status ClientReply(Call& call) {
  if (call.args.Is(2, "ON")) {
    call.client.reply_mode = ReplyMode::kOn;
    call.reply.Ok();
  } else if (call.args.Is(2, "OFF")) {
    call.client.reply_mode = ReplyMode::kOff;
  } else if (call.args.Is(2, "SKIP")) {
    if (call.client.reply_mode != ReplyMode::kOff) call.client.reply_mode = ReplyMode::kSkipNext;
  } else {
    return Status::Error(kSyntaxError);
  }
  return Status::Ok();
}

constexpr std::pair<Durability, const char*> kDurabilities[] = {{Durability::kNone, "none"},
                                                                {Durability::kAsync, "async"},
                                                                {Durability::kSync, "sync"},
                                                                {Durability::kDefault, "default"}};

// CLIENT DURABILITY [NONE|ASYNC|SYNC|DEFAULT]
// Ours. Raised to SYNC the reply waits until what this connection has seen is on disk, as every
// reply from then on.
Status ClientDurability(Call& call) {
  if (call.args.size() > 3) return WrongArity(call.command);
  const bool asks = call.args.size() == 2;
  const auto row =
      std::find_if(std::begin(kDurabilities), std::end(kDurabilities), [&](const auto& candidate) {
        return asks ? candidate.first == call.client.durability : call.args.Is(2, candidate.second);
      });
  if (row == std::end(kDurabilities)) {
    return Status::Error("ERR CLIENT DURABILITY mode must be NONE, ASYNC, SYNC or DEFAULT");
  }
  if (asks) {
    call.reply.Bulk(row->second);
    return Status::Ok();
  }
  if (row->first == Durability::kSync && ServerOf(call).execution().log == nullptr) {
    return Status::Error("ERR CLIENT DURABILITY sync cannot be used when appendonly is disabled.");
  }
  if (row->first == Durability::kSync &&
      ServerOf(call).execution().log->state() == wal::State::kDegraded) {
    return Status::Error(
        "MISCONF CLIENT DURABILITY sync cannot be promised while the log is not kept; see "
        "wal_state in INFO persistence.");
  }
  SetDurability(call, row->first);
  // Its reply says that all before it is durable.
  if (row->first == Durability::kSync) call.client.own_lsn = call.client.gate;
  call.reply.Ok();
  return Status::Ok();
}

Status Switch(Call& call, bool* flag) {
  if (call.args.Is(2, "ON")) {
    *flag = true;
  } else if (call.args.Is(2, "OFF")) {
    *flag = false;
  } else {
    return Status::Error(kSyntaxError);
  }
  call.reply.Ok();
  return Status::Ok();
}

// CLIENT NO-EVICT ON|OFF
Status ClientNoEvict(Call& call) { return Switch(call, &call.client.no_evict); }

// CLIENT NO-TOUCH ON|OFF
Status ClientNoTouch(Call& call) { return Switch(call, &call.client.no_touch); }

// CLIENT PAUSE timeout [WRITE|ALL]
// A later call can make a pause longer or wider, never shorter or narrower.
Status ClientPause(Call& call) {
  bool writes_only = false;
  if (call.args.size() == 4) {
    if (call.args.Is(3, "WRITE")) {
      writes_only = true;
    } else if (!call.args.Is(3, "ALL")) {
      return Status::Error("ERR CLIENT PAUSE mode must be WRITE or ALL");
    }
  } else if (call.args.size() > 4) {
    return Status::Error("ERR unknown subcommand or wrong number of arguments for '" +
                         std::string(call.args[1]) + "'. Try CLIENT HELP.");
  }
  int64_t timeout_ms = 0;
  if (!ParseInt64(call.args[2], &timeout_ms)) {
    return Status::Error("ERR timeout is not an integer or out of range");
  }
  if (timeout_ms < 0) return Status::Error("ERR timeout is negative");
  if (timeout_ms > std::numeric_limits<int64_t>::max() - call.now_ms) {
    return Status::Error("ERR timeout is out of range");
  }
  Execution& execution = ServerOf(call).execution();
  const bool paused = execution.pause_until_ms > call.now_ms;
  execution.pause_writes_only = writes_only && (!paused || execution.pause_writes_only);
  execution.pause_until_ms = std::max(execution.pause_until_ms, call.now_ms + timeout_ms);
  call.reply.Ok();
  return Status::Ok();
}

// CLIENT UNPAUSE
Status ClientUnpause(Call& call) {
  Server& server = ServerOf(call);
  server.execution().pause_until_ms = 0;
  server.ResumeAll();
  call.reply.Ok();
  return Status::Ok();
}

constexpr uint32_t kSelf = kNoScript | kLoading | kStale | kConnection;
constexpr uint32_t kOthers = kAdmin | kNoScript | kLoading | kStale | kConnection;

constexpr Command kCommands[] = {
    // As in Redis, so that who watches a server sees that its disk has failed.
    Command("ping", "[message]", Ping, -1, kFast | kConnection | kRefusedWithWrites, Scope::kLoop,
            kNoKeys, Group::kConnection, "1.0.0", "O(1)",
            "Answers PONG, or the message it was given.",
            "request_policy:all_shards response_policy:all_succeeded"),
    Command("echo", "message", Echo, 2, kLoading | kStale | kFast | kConnection, Scope::kLoop,
            kNoKeys, Group::kConnection, "1.0.0", "O(1)", "Sends the message back."),
    Command("quit", "", Quit, -1,
            kNoScript | kLoading | kStale | kFast | kNoAuth | kAllowBusy | kConnection,
            Scope::kLoop, kNoKeys, Group::kConnection, "1.0.0", "O(1)",
            "Closes the connection after all replies."),
    Command("select", "index:integer", Select, 2, kLoading | kStale | kFast | kConnection,
            Scope::kLoop, kNoKeys, Group::kConnection, "1.0.0", "O(1)",
            "Chooses the database of this connection."),
    Command("auth", "[username@6.0.0] password", Auth, -2,
            kNoScript | kLoading | kStale | kFast | kNoAuth | kAllowBusy | kConnection,
            Scope::kLoop, kNoKeys, Group::kConnection, "1.0.0", "O(1)",
            "Tells who is behind this connection."),
    Command("hello",
            "[arguments: protover:integer [AUTH username_password: username password] [SETNAME "
            "clientname]]",
            Hello, -1, kNoScript | kLoading | kStale | kFast | kNoAuth | kAllowBusy | kConnection,
            Scope::kLoop, kNoKeys, Group::kConnection, "6.0.0", "O(1)",
            "Chooses the protocol, and introduces client and server to each other."),
    Command("reset", "", Reset, 1,
            kNoScript | kLoading | kStale | kFast | kNoAuth | kAllowBusy | kConnection,
            Scope::kLoop, kNoKeys, Group::kConnection, "6.2.0", "O(1)",
            "Makes the connection as it was when it was new."),
    Command("client", "", nullptr, -2, 0, Scope::kLoop, kNoKeys, Group::kConnection, "2.4.0",
            "By the subcommand.", "Commands about connections."),
    Command("client|durability", "[mode: NONE|ASYNC|SYNC|DEFAULT]", ClientDurability, -2, kSelf,
            Scope::kLoop, kNoKeys, Group::kConnection, "7.4.0", "O(1)",
            "What the replies to this connection promise of the disk."),
    Command("client|getname", "", ClientGetName, 2, kSelf, Scope::kLoop, kNoKeys,
            Group::kConnection, "2.6.9", "O(1)", "The name of this connection."),
    Command("client|help", "", ContainerHelp, 2, kLoading | kStale | kConnection, Scope::kLoop,
            kNoKeys, Group::kConnection, "5.0.0", "O(1)", "What CLIENT can do."),
    Command("client|id", "", ClientId, 2, kSelf, Scope::kLoop, kNoKeys, Group::kConnection, "5.0.0",
            "O(1)", "The number of this connection."),
    Command("client|info", "", ClientInfo, 2, kSelf, Scope::kLoop, kNoKeys, Group::kConnection,
            "6.2.0", "O(1)", "Facts about this connection.", "nondeterministic_output"),
    Command("client|kill",
            "(filter: ip:port!2.8.12|(new-format: [ID client-id:integer@2.8.12]|"
            "[TYPE normal_master_slave_pubsub@2.8.12: NORMAL|MASTER@3.2.0|SLAVE|REPLICA@5.0.0|"
            "PUBSUB]|[USER username]|[ADDR ip:port]|[LADDR ip:port@6.2.0]|[SKIPME yes/no]|"
            "[MAXAGE maxage:integer@7.4.0])...)",
            ClientKill, -3, kOthers, Scope::kExclusive, kNoKeys, Group::kConnection, "2.4.0",
            "O(N), N = connections", "Closes connections."),
    Command("client|list",
            "[TYPE normal_master_replica_pubsub@5.0.0: NORMAL|MASTER|REPLICA|PUBSUB] "
            "[ID id@6.2.0: client-id:integer...]",
            ClientList, -2, kOthers, Scope::kExclusive, kNoKeys, Group::kConnection, "2.4.0",
            "O(N), N = connections", "Facts about all connections.", "nondeterministic_output"),
    Command("client|no-evict", "(enabled: ON|OFF)", ClientNoEvict, 3, kOthers, Scope::kLoop,
            kNoKeys, Group::kConnection, "7.0.0", "O(1)",
            "Spares this connection from client eviction."),
    Command("client|no-touch", "(enabled: ON|OFF)", ClientNoTouch, 3, kSelf, Scope::kLoop, kNoKeys,
            Group::kConnection, "7.2.0", "O(1)",
            "Leaves access times alone while this connection reads."),
    Command("client|pause", "timeout:integer [mode@6.2.0: WRITE|ALL]", ClientPause, -3, kOthers,
            Scope::kExclusive, kNoKeys, Group::kConnection, "2.9.50", "O(1)",
            "Holds back commands for a while."),
    Command("client|reply", "(on_off_skip: ON|OFF|SKIP)", ClientReply, 3, kSelf, Scope::kLoop,
            kNoKeys, Group::kConnection, "3.2.0", "O(1)", "Switches replies off and on."),
    Command("client|setinfo", "(attr: LIB-NAME libname|LIB-VER libver)", ClientSetInfo, 4, kSelf,
            Scope::kLoop, kNoKeys, Group::kConnection, "7.2.0", "O(1)",
            "Notes the library behind this connection.",
            "request_policy:all_nodes response_policy:all_succeeded"),
    Command("client|setname", "connection-name", ClientSetName, 3, kSelf, Scope::kLoop, kNoKeys,
            Group::kConnection, "2.6.9", "O(1)", "Names this connection."),
    Command("client|unpause", "", ClientUnpause, 2, kOthers, Scope::kExclusive, kNoKeys,
            Group::kConnection, "6.2.0", "O(N), N = held back connections", "Ends a pause."),
};

}  // namespace

std::span<const Command> ClientCommands() { return kCommands; }

}  // namespace crab
