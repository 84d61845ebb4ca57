# The parts of nixpkgs' lib and of its module system that nix/module.nix needs, to evaluate it on a machine without nixpkgs. Every
# name has the same meaning as in nixpkgs; many features are left out.
let
  inherit (builtins)
    all
    attrNames
    concatLists
    concatMap
    concatStringsSep
    elem
    filter
    foldl'
    head
    isAttrs
    isBool
    isFunction
    isList
    isString
    length
    mapAttrs
    match
    replaceStrings
    tail
    ;

  special = "\\[{()^$?*+|.}]";
  optionals = wanted: list: if wanted then list else [ ];
  optional = wanted: value: optionals wanted [ value ];
  isOption = value: isAttrs value && value._type or "" == "option";
  showPath = concatStringsSep ".";

  attrByPath =
    path: default: set:
    if path == [ ] then
      set
    else if isAttrs set && set ? ${head path} then
      attrByPath (tail path) default set.${head path}
    else
      default;

  mkOverride = priority: content: {
    _type = "override";
    inherit priority content;
  };

  # The definitions that count: the ones with the lowest priority number. A definition is a value with its file.
  winners =
    definitions:
    let
      isOverride = value: value._type or "" == "override";
      priority = { value, ... }: if isOverride value then value.priority else 100;
      best = foldl' (least: one: if priority one < least then priority one else least) 9999 definitions;
      isOrder = value: value._type or "" == "order";
      order = { value, ... }: if isOrder value then value.priority else 1000;
      plain = is: one: if is one.value then one // { value = one.value.content; } else one;
      found = map (plain isOverride) (filter (one: priority one == best) definitions);
    in
    map (plain isOrder) (builtins.sort (one: other: order one < order other) found);

  # The values in a definition after mkIf and mkMerge are resolved: a list of zero, one or more.
  expand =
    value:
    if value._type or "" == "merge" then
      concatMap expand value.contents
    else if value._type or "" == "if" then
      optionals value.condition (expand value.content)
    else
      [ value ];

  mergeOne =
    path: values:
    if length values == 1 || all (value: value == head values) values then
      head values
    else
      throw "${showPath path} is defined more than once";

  types =
    let
      plain = name: check: {
        inherit name check;
        merge = mergeOne;
      };
      isPath =
        value: (builtins.isPath value || isString value || value ? outPath) && match "/.*" (toString value) != null;
    in
    rec {
      unspecified = plain "anything" (_: true) // {
        merge = path: values: if all isList values then concatLists values else mergeOne path values;
      };
      bool = plain "boolean" isBool;
      int = plain "integer" builtins.isInt;
      str = plain "string" isString;
      lines = str // {
        merge = _: concatStringsSep "\n";
      };
      path = plain "path" isPath;
      package = plain "package" (value: isPath value);
      enum = values: plain "one of ${concatStringsSep ", " values}" (value: elem value values);
      strMatching = pattern: plain "string of ${pattern}" (value: isString value && match pattern value != null);
      nullOr =
        type:
        plain "null or ${type.name}" (value: value == null || type.check value)
        // {
          merge = path: values: if elem null values then mergeOne path values else type.merge path values;
        };
      listOf = type: {
        name = "list of ${type.name}";
        check = value: isList value && all type.check value;
        merge = _: concatLists;
      };
      attrsOf = lazyAttrsOf;
      # The names do not depend on the values.
      lazyAttrsOf = type: {
        name = "attributes of ${type.name}";
        check = isAttrs;
        merge =
          path: sets:
          mapAttrs (
            name: _:
            merged (path ++ [ name ]) type (
              map (value: { inherit value; }) (concatMap (set: if set ? ${name} then expand set.${name} else [ ]) sets)
            )
          ) (foldl' (all: set: all // set) { } sets);
      };
    };

  merged =
    path: type: definitions:
    let
      values = map (one: one.value) (winners definitions);
      wrong = filter (value: !type.check value) values;
    in
    if wrong == [ ] then type.merge path values else throw "${showPath path} is no ${type.name}";

  evalModules =
    { modules, specialArgs ? { } }:
    let
      load =
        module:
        let
          value = if builtins.isPath module || isString module then import module else module;
          result = if isFunction value then value arguments else value;
        in
        {
          key = toString (if builtins.isPath module || isString module then module else "");
          imports = result.imports or [ ];
          disabled = result.disabledModules or [ ];
          options = result.options or { };
          config =
            if result ? config || result ? options then
              result.config or { }
            else
              removeAttrs result [
                "disabledModules"
                "imports"
              ];
        };
      reach = module: [ module ] ++ concatMap (imported: reach (load imported)) module.imports;
      found = concatMap (module: reach (load module)) modules;
      disabled = concatMap (module: map (name: toString specialArgs.modulesPath + "/${name}") module.disabled) found;
      # In nixpkgs the imports of a disabled module are not loaded. The disabled modules here import nothing.
      loaded = filter (module: !elem module.key disabled) found;

      located = file: map (value: { inherit file value; });
      configs = concatMap (module: located module.key (expand module.config)) loaded;
      declared = foldl' (declare [ ]) { } (map (module: module.options) loaded);
      declare =
        path: one: other:
        one
        // mapAttrs (
          name: value:
          if !(one ? ${name}) then
            value
          else if isOption value || isOption one.${name} then
            throw "${showPath (path ++ [ name ])} is declared more than once"
          else
            declare (path ++ [ name ]) one.${name} value
        ) other;

      evaluate =
        path: definitions: declarations:
        let
          below =
            name:
            concatMap (one: if one.value ? ${name} then located one.file (expand one.value.${name}) else [ ]) definitions;
          undeclared = filter (name: !(declarations ? ${name})) (concatMap (one: attrNames one.value) definitions);
        in
        if undeclared != [ ] then
          throw "${showPath (path ++ [ (head undeclared) ])} is not declared"
        else
          mapAttrs (
            name: value:
            let
              here = path ++ [ name ];
              defaults = optional (value ? default) {
                file = toString (specialArgs.modulesPath or ""); # as if nixpkgs declared every option
                value = mkOverride 1500 value.default;
              };
              everything = below name ++ defaults;
            in
            if isOption value then
              value
              // {
                isDefined = everything != [ ];
                definitionsWithLocations = winners everything;
                value =
                  if everything == [ ] then
                    throw "${showPath here} is used and not defined"
                  else
                    (value.apply or (x: x)) (merged here (value.type or types.unspecified) everything);
              }
            else
              evaluate here (below name) value
          ) declarations;

      values = mapAttrs (_: value: if isOption value then value.value else values value);
      result = {
        options = evaluate [ ] configs declared;
        config = values result.options;
      };
      arguments = {
        inherit lib;
        inherit (result) config options;
      }
      // specialArgs;
    in
    result;

  lib = {
    inherit
      attrByPath
      concatMap
      concatStringsSep
      elem
      evalModules
      filter
      isOption
      mkOverride
      optional
      optionals
      types
      ;
    mkDefault = mkOverride 1000;
    mkBefore = content: {
      _type = "order";
      priority = 500;
      inherit content;
    };
    mkForce = mkOverride 50;
    mkImageMediaOverride = mkOverride 60;
    mkIf = condition: content: {
      _type = "if";
      inherit condition content;
    };
    mkMerge = contents: {
      _type = "merge";
      inherit contents;
    };
    mkOption = option: option // { _type = "option"; };
    literalExpression = text: {
      _type = "literalExpression";
      inherit text;
    };
    inherit attrNames;
    inherit (builtins) all any attrValues;
    last = list: builtins.elemAt list (length list - 1);
    removePrefix =
      prefix: text: if lib.hasPrefix prefix text then builtins.substring (builtins.stringLength prefix) (-1) text else text;
    splitString = separator: text: filter isString (builtins.split (lib.escapeRegex separator) text);
    escapeRegex = replaceStrings (builtins.genList (at: builtins.substring at 1 special) 14) (
      builtins.genList (at: "\\" + builtins.substring at 1 special) 14
    );
    setAttrByPath =
      path: value: if path == [ ] then value else { ${head path} = lib.setAttrByPath (tail path) value; };
    hasInfix = infix: text: length (builtins.split (lib.escapeRegex infix) text) > 1;
    hasSuffix =
      suffix: text:
      let
        start = builtins.stringLength text - builtins.stringLength suffix;
      in
      start >= 0 && builtins.substring start (-1) text == suffix;
    hasPrefix = prefix: text: builtins.substring 0 (builtins.stringLength prefix) text == prefix;
    optionalAttrs = wanted: set: if wanted then set else { };
    optionalString = wanted: text: if wanted then text else "";
    unique = foldl' (list: value: if elem value list then list else list ++ [ value ]) [ ];
    # As in nixpkgs 24.11 and newer: quotes only where they are needed.
    escapeShellArg =
      value:
      let
        text = toString value;
      in
      if match "[[:alnum:],._+:@%/-]+" text != null then text else "'${replaceStrings [ "'" ] [ "'\\''" ] text}'";
    escapeShellArgs = values: concatStringsSep " " (map lib.escapeShellArg values);
    trivial.release = "26.05";
  };
in
lib
